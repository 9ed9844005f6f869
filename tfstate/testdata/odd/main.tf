# What Terraform has to print and to mark: modules, counts, for_each with odd keys, sensitive values, open types.
# Nothing here needs a provider's download. record.sh applies it.

variable "round" {
  type    = number
  default = 1
}

variable "token" {
  type      = string
  default   = "hush-1"
  sensitive = true
}


locals {
  odd = toset([
    "", "plain", "with space", "with.dot", "a\"quote", "back\\slash", "dollar$${x}", "percent%%{x}", "two$$${x}", "just $ and %",
    "ünïcode", "日本", "line\nbreak", "tab\there", "return\rhere", "bell\u0007", "del\u007f", "zwsp\u200b", "nbsp\u00a0", "emoji😀",
    "tag\U000e0041", "]bracket[", "[0]", "<&>", " (deposed x)",
  ])
}

resource "terraform_data" "single" {
  input = "round ${var.round}"
}

resource "terraform_data" "counted" {
  count = 11
  input = count.index
}

resource "terraform_data" "odd" {
  for_each = local.odd
  input    = each.key
}

resource "terraform_data" "open" {
  input = {
    text    = "a"
    number  = 9007199254740993 + var.round
    huge    = 123456789012345678901234567890
    list    = [1, "b", true, null]
    nothing = null
    nested  = { "a key" = { value = "v", type = "string" } }
  }
}

resource "terraform_data" "secret" {
  input = {
    token  = var.token
    "a b"  = { deep = [var.token, "open"] }
    public = "round ${var.round}"
  }
}

resource "terraform_data" "all_secret" {
  input = var.token
}

resource "terraform_data" "replaced" {
  input            = "same"
  triggers_replace = [var.round]
}

resource "terraform_data" "leaving" {
  count = var.round == 1 ? 1 : 0
}

data "terraform_remote_state" "self" {
  backend  = "local"
  config   = { path = "${path.module}/other.tfstate" }
  defaults = { a = "b" }
}

module "one" {
  source = "./child"
  token  = var.token
}

module "many" {
  source   = "./child"
  for_each = toset(["a.b", "q\"x", "$${y}"])
  token    = each.key
}

module "numbered" {
  source = "./child"
  count  = 2
  token  = "t"
}
