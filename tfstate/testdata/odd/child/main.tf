variable "token" {
  type = string
}

resource "terraform_data" "this" {
  for_each = toset(["x", "y.z"])
  input    = each.key
}

module "leaf" {
  source = "./leaf"
  count  = 1
}
