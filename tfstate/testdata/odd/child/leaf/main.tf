resource "terraform_data" "bottom" {
  input = "bottom"
}
