package trail

import "strings"

// Tool is what made a call, as far as the user agent tells. A user agent is the caller's own claim and can be forged.
type Tool string

// The tools told apart. Terraform stands for OpenTofu too: both run the same provider, which sends the same text.
const (
	ToolUnknown        Tool = ""
	ToolTerraform      Tool = "terraform"
	ToolPulumi         Tool = "pulumi"
	ToolCrossplane     Tool = "crossplane"
	ToolCloudFormation Tool = "cloudformation"
	ToolConsole        Tool = "console"
	ToolCLI            Tool = "cli"
	ToolService        Tool = "service"
)

// Tool names the tool behind the call. The provider's token is terraform-provider-aws/ or -awscc/, in older versions
// HashiCorp/1.0 Terraform/ (https://github.com/hashicorp/aws-sdk-go-base, user_agent.go). Pulumi and Crossplane embed the same provider, so
// they are asked first.
func (r *Record) Tool() Tool {
	agent := strings.Trim(r.UserAgent, "[]")
	switch {
	case strings.Contains(agent, "Pulumi/"):
		return ToolPulumi
	case strings.Contains(agent, "crossplane-provider"):
		return ToolCrossplane
	case strings.Contains(agent, "terraform-provider-aws/"), strings.Contains(agent, "terraform-provider-awscc/"),
		strings.Contains(agent, "HashiCorp/1.0 Terraform/"):
		return ToolTerraform
	case agent == "cloudformation.amazonaws.com", r.User.InvokedBy == "cloudformation.amazonaws.com":
		return ToolCloudFormation
	case r.User.Type == "AWSService", strings.HasSuffix(agent, ".amazonaws.com") && !consoleAgent(agent):
		return ToolService
	case r.ConsoleSession, consoleAgent(agent):
		return ToolConsole
	case strings.HasPrefix(agent, "aws-cli/"):
		return ToolCLI
	}
	return ToolUnknown
}

func consoleAgent(agent string) bool {
	for _, sign := range []string{"console.amazonaws.com", "console.ec2.amazonaws.com", "signin.amazonaws.com", "S3Console/", "AWS Internal", "Mozilla/"} {
		if strings.Contains(agent, sign) {
			return true
		}
	}
	return false
}
