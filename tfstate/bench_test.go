package tfstate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// generated is a state of n instances as Terraform writes it, about 2 KB each.
func generated(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"version":4,"terraform_version":"1.11.4","serial":7,"lineage":"l","outputs":{},"resources":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"module":"module.m%d","mode":"managed","type":"aws_security_group","name":"sg%d",
"provider":"provider[\"registry.terraform.io/hashicorp/aws\"]","instances":[{"schema_version":1,"attributes":{
"arn":"arn:aws:ec2:eu-west-1:123456789012:security-group/sg-%017x","description":"line one\nline \"two\"","egress":[{"cidr_blocks":["0.0.0.0/0"],
"description":"","from_port":0,"ipv6_cidr_blocks":[],"prefix_list_ids":[],"protocol":"-1","security_groups":[],"self":false,"to_port":0}],
"id":"sg-%017x","ingress":[{"cidr_blocks":["10.%d.0.0/16","10.%d.0.0/16"],"description":"","from_port":443,"ipv6_cidr_blocks":["::/0"],
"prefix_list_ids":[],"protocol":"tcp","security_groups":["sg-0123456789abcdef0"],"self":false,"to_port":443}],"name":"sg-%d","name_prefix":"",
"owner_id":"123456789012","revoke_rules_on_delete":false,"tags":{"Name":"web %d","team":"payments"},"tags_all":{"Name":"web %d","team":"payments",
"env":"prod"},"timeouts":null,"vpc_id":"vpc-0123456789abcdef0"},"sensitive_attributes":[],"private":"eyJlMmJmYjczMC1lY2FhLTExZTYtOGY4OC0zNDM2M2JjN2M0YzAiOnsiY3JlYXRlIjo2MDAwMDAwMDAwMDAsImRlbGV0ZSI6OTAwMDAwMDAwMDAwfSwic2NoZW1hX3ZlcnNpb24iOiIxIn0=",
"dependencies":["module.m%d.aws_vpc.main","module.m%d.data.aws_ami.web"]}]}`, i/50, i, i, i, i%256, i%250, i, i, i, i/50, i/50)
	}
	b.WriteString(`],"check_results":null}`)
	var pretty bytes.Buffer
	_ = json.Indent(&pretty, b.Bytes(), "", "  ")
	return pretty.Bytes()
}

// plain is the same state for encoding/json, attributes kept raw: what Read is measured against.
type plain struct {
	Version          int             `json:"version"`
	TerraformVersion string          `json:"terraform_version"`
	Serial           uint64          `json:"serial"`
	Lineage          string          `json:"lineage"`
	Resources        []plainResource `json:"resources"`
}

type plainResource struct {
	Module    string          `json:"module"`
	Mode      string          `json:"mode"`
	Type      string          `json:"type"`
	Name      string          `json:"name"`
	Provider  string          `json:"provider"`
	Instances []plainInstance `json:"instances"`
}

type plainInstance struct {
	IndexKey            json.RawMessage `json:"index_key"`
	Status              string          `json:"status"`
	Deposed             string          `json:"deposed"`
	SchemaVersion       uint64          `json:"schema_version"`
	Attributes          json.RawMessage `json:"attributes"`
	SensitiveAttributes json.RawMessage `json:"sensitive_attributes"`
}

func BenchmarkRead(b *testing.B) {
	state := generated(8500)
	b.SetBytes(int64(len(state)))
	b.ReportAllocs()
	// The shortest of each: on a busy machine the rest measures the neighbours.
	best, other := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for b.Loop() {
		start := time.Now()
		if _, err := tfstate.Read(bytes.NewReader(state), func(*tfstate.Instance) error { return nil }); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(start))
		b.StopTimer()
		start = time.Now()
		var p plain
		if err := json.Unmarshal(state, &p); err != nil {
			b.Fatal(err)
		}
		other = min(other, time.Since(start))
		b.StartTimer()
	}
	b.ReportMetric(float64(other)/float64(best), "encoding_json_ratio")
	b.ReportMetric(float64(len(state))/1e6/best.Seconds(), "best_MB/s")
}

// TestReadHeap reads a state much larger than what reading it may keep.
func TestReadHeap(t *testing.T) {
	const limit = 15 << 20
	state := generated(20000)
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n, most := 0, uint64(0)
	_, err := tfstate.Read(bytes.NewReader(state), func(*tfstate.Instance) error {
		if n++; n%4000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&during)
			most = max(most, during.HeapAlloc)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	grown := int64(most) - int64(before.HeapAlloc)
	t.Logf("%d MB of state, heap grown by %d KB", len(state)>>20, grown>>10)
	if grown > limit {
		t.Errorf("the heap grew by %d bytes, want at most %d", grown, limit)
	}
	if _, err := io.Discard.Write(state); err != nil { // the text lives to here: it is not what was freed
		t.Fatal(err)
	}
}
