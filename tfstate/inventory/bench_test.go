package inventory_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

func write(path string, content []byte) error { return os.WriteFile(path, content, 0o600) }

// large is a state of n security groups; those before changed have another description, under the same serial.
func large(n, changed int) string {
	all := make([]resource, n)
	for i := range all {
		all[i] = resource{typ: "aws_security_group", name: fmt.Sprintf("sg%d", i), attributes: fmt.Sprintf(
			`{"arn":"arn:aws:ec2:eu-west-1:111111111111:security-group/sg-%08x","description":"%v","egress":[],"id":"sg-%08x","ingress":[],"name":"web-%d","owner_id":"111111111111","vpc_id":"vpc-%d"}`,
			i, i < changed, i, i, i/100)}
	}
	return state("l", 1, all...)
}

const instances = 100_000

func BenchmarkLookup(b *testing.B) {
	text := large(instances, 0)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := inventory.New(inventory.Options{})
	give(b, v, uri, minute(0), text)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(text)
	ids := make([]string, 1<<16)
	for i := range ids {
		ids[i] = fmt.Sprintf("sg-%08x", i*7919%instances)
	}
	n := 0
	for b.Loop() {
		n++
		if len(v.Lookup("111111111111", "eu-west-1", ids[n%len(ids)])) != 2 {
			b.Fatal("not found")
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/instances, "B/instance")
}

// BenchmarkSwap reads a serial of 10,000 instances of which ten changed, beside 90,000 in other states.
func BenchmarkSwap(b *testing.B) {
	v := inventory.New(inventory.Options{})
	for i := range 9 {
		give(b, v, fmt.Sprintf("file:///other%d", i), minute(0), large(10_000, 0))
	}
	texts := [2]string{large(10_000, 0), large(10_000, 10)}
	n := 0
	for b.Loop() {
		give(b, v, uri, minute(n), texts[n%2])
		n++
	}
}
