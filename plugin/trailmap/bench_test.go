package trailmap_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// BenchmarkResolve resolves decoded records against 10,000 instances: by entry with members, by entry with attributes, by
// identifier, and in vain.
func BenchmarkResolve(b *testing.B) {
	var resources []string
	provider := `"provider":"provider[\"registry.terraform.io/hashicorp/aws\"]"`
	for i := range 5000 {
		resources = append(resources,
			fmt.Sprintf(`{"mode":"managed","type":"aws_security_group","name":"g%d",%s,"instances":[{"attributes":{"id":"sg-%017x","arn":"arn:aws:ec2:eu-west-1:123456789012:security-group/sg-%017x","ingress":[{"cidr_blocks":["10.0.0.0/8"],"from_port":22,"to_port":22,"protocol":"tcp"}]}}]}`, i, provider, i, i),
			fmt.Sprintf(`{"mode":"managed","type":"aws_s3_bucket_public_access_block","name":"b%d",%s,"instances":[{"attributes":{"id":"bucket-%d","bucket":"bucket-%d","block_public_acls":true}}]}`, i, provider, i, i))
	}
	inv := inventory.New(inventory.Options{})
	take(b, inv, "a.tfstate", `{"version":4,"terraform_version":"1.11.4","serial":1,"lineage":"l","resources":[`+strings.Join(resources, ",")+`]}`, written)
	r, err := trailmap.New(inv, nil)
	if err != nil {
		b.Fatal(err)
	}
	at := written.Add(time.Hour).Format(time.RFC3339)
	head := `{"awsRegion":"eu-west-1","recipientAccountId":"123456789012","eventTime":"` + at + `",`
	for name, text := range map[string]string{
		"members":    head + `"eventSource":"ec2.amazonaws.com","eventName":"AuthorizeSecurityGroupIngress","requestParameters":{"groupId":"sg-00000000000000010","ipPermissions":{"items":[{"ipProtocol":"tcp","fromPort":22,"toPort":22,"ipRanges":{"items":[{"cidrIp":"0.0.0.0/0"}]}}]}}}`,
		"attributes": head + `"eventSource":"s3.amazonaws.com","eventName":"PutBucketPublicAccessBlock","requestParameters":{"bucketName":"bucket-7","PublicAccessBlockConfiguration":{"BlockPublicAcls":false}}}`,
		"identifier": head + `"eventSource":"ec2.amazonaws.com","eventName":"AssociateSecurityGroupVpc","requestParameters":{"groupId":"sg-00000000000000010"}}`,
		"in vain":    head + `"eventSource":"ec2.amazonaws.com","eventName":"AssociateVpcCidrBlock","requestParameters":{"vpcId":"vpc-00000000000000010"}}`,
	} {
		rec, err := trail.Decode([]byte(text))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Resolve(rec)
			}
		})
	}
}
