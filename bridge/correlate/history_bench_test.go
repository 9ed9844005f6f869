package correlate_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/correlate"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// groups is a state of n security groups of about 700 bytes; those before changed have another description, and each
// hundredth a sensitive value.
func groups(n, serial, changed int) string {
	all := make([]string, n)
	for i := range all {
		marks := "[]"
		if i%100 == 0 {
			marks = `[[{"type":"get_attr","value":"name"}]]`
		}
		note := "kept by Terraform"
		if i < changed {
			note = fmt.Sprint("changed in serial ", serial)
		}
		all[i] = fmt.Sprintf(`{"mode":"managed","type":"aws_security_group","name":"sg%d","provider":"provider[\"registry.terraform.io/hashicorp/aws\"]","instances":[{"schema_version":1,
 "attributes":{"arn":"arn:aws:ec2:eu-west-1:111111111111:security-group/sg-%08x","description":%q,"egress":[{"cidr_blocks":["0.0.0.0/0"],"description":"","from_port":0,"ipv6_cidr_blocks":[],"prefix_list_ids":[],"protocol":"-1","security_groups":[],"self":false,"to_port":0}],"id":"sg-%08x","ingress":[{"cidr_blocks":["10.0.0.0/8"],"description":"","from_port":443,"ipv6_cidr_blocks":[],"prefix_list_ids":[],"protocol":"tcp","security_groups":[],"self":false,"to_port":443}],"name":"web-%d","owner_id":"111111111111","tags":{"Name":"web-%d","team":"platform"},"tags_all":{"Name":"web-%d","team":"platform"},"vpc_id":"vpc-%d"},"sensitive_attributes":%s}]}`,
			i, i, note, i, i, i, i, i/100, marks)
	}
	return fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","resources":[%s]}`, serial, strings.Join(all, ","))
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// life is one bridge's journal, states and correlator; told says that a serial is in the journal.
type life struct {
	book   *journal.Journal
	states *inventory.Inventory
	told   chan struct{}
	stop   func()
}

func newLife(b *testing.B, dir string) *life {
	b.Helper()
	book, err := journal.Open(b.Context(), dir, journal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	l := &life{book: book, told: make(chan struct{}, 100)}
	red := tfstate.NewRedactor(nil).Keeping(book.Key())
	ctx, cancel := context.WithCancel(context.Background())
	var judge *correlate.Correlator
	l.states = inventory.New(inventory.Options{Redactor: red, Past: correlate.Past(book), OnSerial: func(s inventory.Serial) { judge.Serial(ctx, s) }})
	resolver, err := trailmap.New(l.states, red)
	if err != nil {
		b.Fatal(err)
	}
	judge = correlate.New(book, l.states, resolver, correlate.Options{})
	ended := make(chan error)
	go func() { ended <- judge.Run(ctx) }()
	l.stop = func() {
		cancel() // Run tells what waits, and ends
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
		if err := book.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return l
}

// BenchmarkHistory tells, of a state with ten serials of which each changed ten instances: what storing the first serial and
// a later one costs, how long a restart takes to restore and to read the state again, and the heap with and without a past.
func BenchmarkHistory(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint("instances=", n), func(b *testing.B) {
			for b.Loop() {
				benchmarkHistory(b, n)
			}
		})
	}
}

func benchmarkHistory(b *testing.B, n int) {
	dir := b.TempDir()
	give := func(l *life, serial int) (read, stored time.Duration) {
		text := groups(n, serial, 10*(serial-1))
		start := time.Now()
		if err := l.states.Version(b.Context(), content(text, at(serial))); err != nil {
			b.Fatal(err)
		}
		read = time.Since(start)
		l.stop() // told and stored
		return read, time.Since(start) - read
	}
	before := heap()
	read, stored := give(newLife(b, dir), 1)
	b.ReportMetric((read + stored).Seconds(), "first-s")
	var l *life
	for serial := 2; serial <= 10; serial++ {
		l = newLife(b, dir)
		read, stored = give(l, serial)
	}
	b.ReportMetric(stored.Seconds()*1000, "store-10-ms")
	b.ReportMetric(read.Seconds(), "restore-and-read-s")
	b.ReportMetric(float64(heap()-before)/1e6, "heap-MB")
	runtime.KeepAlive(l)

	l = newLife(b, dir)
	start := time.Now()
	l.states.Fault("test://a", os.ErrNotExist) // has it restored
	b.ReportMetric(time.Since(start).Seconds(), "restore-s")
	b.ReportMetric(float64(heap()-before)/1e6, "restored-MB")
	runtime.KeepAlive(l)
	l.stop()
	info, err := os.Stat(filepath.Join(dir, "journal.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/1e6, "file-MB")
}
