#!/bin/sh
# Records odd/*.tfstate and, beside each, what `terraform state list` prints of it: two rounds of odd/main.tf, the
# second with a taint, a move and other values. Needs terraform 1.5 or newer and no network.
#
#   ./record.sh [folder to write to; default odd]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/odd}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$here/odd/main.tf" "$here/odd/child" "$work"
cd "$work"
export CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1 TF_CLI_CONFIG_FILE=/dev/null
echo '{"version":4,"terraform_version":"1.5.0","serial":1,"lineage":"x","outputs":{},"resources":[]}' > other.tfstate

keep() {
  cp terraform.tfstate "$out/$1.tfstate"
  terraform state list > "$out/$1.list"
}

terraform init -no-color > /dev/null
terraform apply -auto-approve -no-color > /dev/null
keep first
terraform state mv 'terraform_data.counted[10]' 'terraform_data.moved' > /dev/null
terraform taint 'module.one.terraform_data.this["x"]' > /dev/null
keep edited
cat >> main.tf <<'TF'
resource "terraform_data" "moved" {
  input = 10
}
TF
sed -i.bak 's/count = 11/count = 10/' main.tf
terraform apply -auto-approve -no-color -var round=2 -var token=hush-2 -target terraform_data.secret -target terraform_data.single \
  -target terraform_data.open -target terraform_data.replaced -target terraform_data.leaving -target terraform_data.all_secret > /dev/null 2>&1
keep second
