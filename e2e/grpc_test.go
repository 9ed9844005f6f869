package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/falcosecurity/client-go/pkg/api/outputs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// falcoOutputs stands in for the output service of Falco 0.43, which cannot be had as a program here, and behaves as that
// was observed to: one queue for the whole process, which Get and Sub pop; Sub drains the queue each time the client asks and
// then waits for its next request; what was popped is gone, whoever received it; alerts without a client wait.
type falcoOutputs struct {
	outputs.UnimplementedServiceServer
	mu    sync.Mutex
	queue []*outputs.Response
	gave  int
}

func (f *falcoOutputs) alert(r *outputs.Response) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, r)
}

func (f *falcoOutputs) pop() *outputs.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		return nil
	}
	r := f.queue[0]
	f.queue, f.gave = f.queue[1:], f.gave+1
	return r
}

func (f *falcoOutputs) drain(send func(*outputs.Response) error) error {
	for r := f.pop(); r != nil; r = f.pop() {
		if err := send(r); err != nil {
			return err
		}
	}
	return nil
}

func (f *falcoOutputs) Get(_ *outputs.Request, stream outputs.Service_GetServer) error {
	return f.drain(stream.Send)
}

func (f *falcoOutputs) Sub(stream outputs.Service_SubServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := f.drain(stream.Send); err != nil {
			return err
		}
	}
}

// serve serves the outputs on a unix socket until the returned function ends it.
func (f *falcoOutputs) serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	outputs.RegisterServiceServer(server, f)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	return func() {
		server.Stop()
		<-ended
	}
}

// responses are the messages recorded from a real Falco's gRPC output, decoded from their bytes on the wire.
func responses(t *testing.T, name string) []*outputs.Response {
	t.Helper()
	var all []*outputs.Response
	lines := bufio.NewScanner(bytes.NewReader(fixture(t, name)))
	lines.Buffer(nil, 1<<20)
	wire := regexp.MustCompile(`^wire \(\d+ bytes\): ([0-9a-f]+)$`)
	for lines.Scan() {
		m := wire.FindSubmatch(lines.Bytes())
		if m == nil {
			continue
		}
		raw, err := hex.DecodeString(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		r := &outputs.Response{}
		if err := proto.Unmarshal(raw, r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if len(all) < 4 {
		t.Fatalf("%s: %d messages", name, len(all))
	}
	return all
}

func TestFalcosGRPCOutput(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "falco.sock")
	recorded := responses(t, "falco/append-grpc043.txt")
	falco := &falcoOutputs{}
	half := len(recorded) / 2
	for _, r := range recorded[:half] {
		falco.alert(r) // before anybody is connected
	}
	b := start(t, "--falco-grpc", "unix://"+socket) // before Falco is there
	c := b.watch("events")
	stop := falco.serve(t, socket)
	rules := func(n int) {
		t.Helper()
		for range n {
			c.await("falco", func(message) bool { return true })
		}
	}
	rules(half)
	stop() // Falco restarts
	for _, r := range recorded[half:] {
		falco.alert(r)
	}
	defer falco.serve(t, socket)()
	rules(len(recorded) - half)
	for i, m := range c.kind("falco") {
		if id, want := m.payload(t)["event_id"], recorded[i].GetOutputFields()["ct.id"]; id != want {
			t.Errorf("alert %d: event %v, want %v", i, id, want)
		}
	}
	falco.mu.Lock()
	defer falco.mu.Unlock()
	if falco.gave != len(recorded) {
		t.Errorf("Falco gave away %d alerts, want %d", falco.gave, len(recorded))
	}
	c.once()
}

func (c *client) kind(kind string) []message {
	var all []message
	for _, m := range c.seen {
		if m.Type == kind {
			all = append(all, m)
		}
	}
	return all
}
