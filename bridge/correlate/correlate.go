// Package correlate joins what happened with what the states say.
//
// In come alerts from the journal's inbox, in the order in which they were stored, and new serials from the inventory;
// out go messages, drift rows and state rows, each batch in one journal transaction together with the mark that its
// alerts are done: after a crash a batch was told whole or comes again whole, and nothing is told twice. One CloudTrail
// event is judged once, by its eventID, through however many alerts it comes.
//
// The verdicts: a managed instance changed outside Terraform is a drift, one message for each attribute; a change whose
// user agent says Terraform and a refused call are told on the topic events; what no state explains is counted as a
// blind spot by event.
//
// Start reading at Run; verdict.go judges one record, serial.go tells one serial, history.go stores it.
package correlate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// Options of a Correlator. The zero value works.
type Options struct {
	Log     *slog.Logger          // nil logs nothing
	Metrics prometheus.Registerer // nil keeps the figures unregistered
	// Ready holds back the alerts, not the serials, until it is closed: before the states are read once, every change
	// would look like a blind spot. Nil holds nothing back.
	Ready <-chan struct{}
}

// Correlator is the stage. Run is called once; Serial may be called from any goroutine.
type Correlator struct {
	journal   *journal.Journal
	inventory *inventory.Inventory
	resolver  *trailmap.Resolver
	log       *slog.Logger
	metrics   metrics
	// serials waits for Run with room for serialQueue; when it is full, Serial blocks, and with it only the reading of
	// states.
	serials chan inventory.Serial
	cut     atomic.Bool // a serial was given up: no more are taken
	ready   <-chan struct{}
	faults  map[string]string // what was last told of each state's fault
	stuck   bool              // the inbox could not be read the last time
}

const (
	batch       = 256 // alerts in one transaction
	serialQueue = 64
	faultPoll   = 5 * time.Second // how soon a state that cannot be read shows so
)

// New makes the stage; Run starts it. The inventory and the resolver over it are asked about every change; the
// inventory's serials are to be given to Serial.
func New(j *journal.Journal, inv *inventory.Inventory, resolver *trailmap.Resolver, o Options) *Correlator {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		open := make(chan struct{})
		close(open)
		o.Ready = open
	}
	if o.Metrics != nil {
		o.Metrics.MustRegister(states{inv})
	}
	serials := make(chan inventory.Serial, serialQueue)
	return &Correlator{
		journal: j, inventory: inv, resolver: resolver, log: o.Log.With("component", "correlate"),
		metrics: newMetrics(o.Metrics, func() float64 { return float64(len(serials)) }),
		serials: serials, ready: o.Ready, faults: map[string]string{},
	}
}

// Serial hands over one new serial, in order. It blocks while the queue is full, until ctx is done. After one that is given up
// then, all are: what is stored of a serial is what differs from the one before it. They are read and told at the next start.
func (c *Correlator) Serial(ctx context.Context, s inventory.Serial) {
	if c.cut.Load() {
		return
	}
	select {
	case c.serials <- s: // also when ctx has ended: Run still takes it
		return
	default:
	}
	select {
	case c.serials <- s:
	case <-ctx.Done():
		c.cut.Store(true)
	}
}

// Run works until ctx ends, and then returns nil. What the disk or the file refuses is tried again; an error is the
// journal's, which cannot go on.
func (c *Correlator) Run(ctx context.Context) error {
	tick := time.NewTicker(faultPoll)
	defer tick.Stop()
	ready := c.ready
	var arrived <-chan struct{} // nil until ready
	var again <-chan time.Time  // nil unless the inbox could not be read
	for {
		var err error
		select {
		case <-ctx.Done():
			return c.waitingSerials(ctx) // what the states stage handed over before it ended
		case s := <-c.serials:
			err = c.tell(ctx, s)
		case <-ready:
			ready, arrived = nil, c.journal.Arrived()
			if err = errors.Join(c.keepHistories(ctx), c.earlierFaults(ctx)); journal.Temporary(err) {
				c.log.Error("histories and faults of states that are gone are kept until the next start", "error", err)
				err = nil
			}
			if err == nil {
				again, err = c.inbox(ctx) // what an earlier run left in the inbox
			}
		case <-arrived:
			again, err = c.inbox(ctx)
		case <-again:
			again, err = c.inbox(ctx)
		case <-tick.C:
			err = c.tellFaults(ctx)
		}
		if err = ended(ctx, err); err != nil {
			return err
		}
	}
}

// inbox works off the inbox. A fault of the disk or the file must not end a bridge that still serves what it has: it is
// logged, the first of a run, and again says when to try anew.
func (c *Correlator) inbox(ctx context.Context) (again <-chan time.Time, err error) {
	err = c.alerts(ctx)
	temporary := journal.Temporary(err)
	if temporary && !c.stuck {
		c.log.Error("the journal cannot be read, tried again until it can", "error", err)
	}
	if c.stuck = temporary; temporary {
		return time.After(5 * commitAgain), nil
	}
	return nil, err
}

func ended(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return fmt.Errorf("correlate: %w", err)
}

// alerts works off the inbox, batch by batch. Serials that were handed over before an alert was stored are told before
// it is judged: hence they are taken after the batch is read.
func (c *Correlator) alerts(ctx context.Context) error {
	var after int64
	for {
		entries, err := c.journal.Pending(ctx, after, batch)
		if err != nil || len(entries) == 0 {
			return err
		}
		if err := c.waitingSerials(ctx); err != nil {
			return err
		}
		commit, err := c.judge(ctx, entries)
		if err != nil {
			return err
		}
		if err := c.commit(ctx, commit); err != nil {
			return err
		}
		after = entries[len(entries)-1].Seq
		now := time.Now()
		for _, e := range entries {
			c.metrics.latency.Observe(now.Sub(e.Received).Seconds())
		}
	}
}

// commitAgain is the pause between tries of a commit.
const commitAgain = time.Second

// commit stores what was judged: see again. Nobody sends the bridge its alerts again.
func (c *Correlator) commit(ctx context.Context, commit journal.Commit) error {
	return c.again(ctx, func(ctx context.Context) error { return c.journal.Commit(ctx, commit) })
}

// again tries until the journal takes what it is given, as the intakes do: a full disk or a lock held by a backup must not
// end the bridge. Once ctx has ended there is one last try.
func (c *Correlator) again(ctx context.Context, give func(context.Context) error) error {
	for tries := 0; ; {
		last := ctx.Err() != nil
		err := give(context.WithoutCancel(ctx))
		if last || !journal.Temporary(err) {
			return err
		}
		if tries++; tries == 1 {
			c.log.Error("not journalled, tried again until it is", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(commitAgain):
		}
	}
}

// withheld leaves the text out of an alert whose record changes a value that a state marks sensitive: Falco's text may
// have that value, and only the tfdrift source has masked it.
func withheld(a journal.Alert, targets []trailmap.Target) journal.Alert {
	if a.Source == "tfdrift" {
		return a
	}
	for _, t := range targets {
		if slices.ContainsFunc(t.Attributes, func(at trailmap.Attribute) bool { return at.Sensitive }) {
			a.Output = "(sensitive)"
		}
	}
	return a
}

func (c *Correlator) waitingSerials(ctx context.Context) error {
	for {
		select {
		case s := <-c.serials:
			if err := c.tell(ctx, s); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// judge makes the transaction for one batch.
func (c *Correlator) judge(ctx context.Context, entries []journal.Entry) (journal.Commit, error) {
	var commit journal.Commit
	here := map[string]bool{} // events judged within this batch
	for _, e := range entries {
		commit.Done = append(commit.Done, e.Seq)
		var rec *trail.Record
		if len(e.Alert.Record) > 0 {
			var err error
			if rec, err = trail.Decode(e.Alert.Record); err != nil {
				c.log.Warn("alert carries a record that cannot be read", "rule", e.Alert.Rule, "cause", err)
			}
		}
		var targets []trailmap.Target
		if rec != nil && rec.Mutating() {
			targets = c.resolver.Resolve(rec).Targets
		}
		if e.Alert.Rule != "" || rec == nil {
			commit.Messages = append(commit.Messages, falcoMessage(withheld(e.Alert, targets), rec))
		}
		if rec == nil || !rec.Mutating() {
			continue
		}
		id := eventID(rec)
		told, err := c.journal.Told(ctx, id)
		if err != nil {
			return commit, err
		}
		if told || here[id] {
			continue
		}
		if len(targets) == 0 && rec.Request == nil && e.Alert.Rule != "" {
			continue // an alert without ct.request tells too little to use the event up: the whole record may follow
		}
		here[id] = true
		commit.Events = append(commit.Events, id)
		c.metrics.age.Observe(max(time.Since(rec.EventTime).Seconds(), 0))
		c.judgeRecord(&commit, e.Alert, rec, targets)
	}
	return commit, nil
}

// eventID is what CloudTrail calls the event; a trimmed record without one is told apart by all it says.
func eventID(rec *trail.Record) string {
	if rec.EventID != "" {
		return rec.EventID
	}
	return "record:" + digest(string(rec.Raw))
}

func falcoMessage(a journal.Alert, rec *trail.Record) wire.Message {
	p := wire.Falco{
		Severity: severityOf(a.Priority), Rule: a.Rule, Output: a.Output, ContainerID: a.ContainerID,
		Priority: a.Priority, Source: a.Source, Hostname: a.Hostname, Tags: a.Tags,
	}
	if rec != nil {
		p.EventID = rec.EventID
	}
	return wire.Message{Type: wire.TypeFalco, Topic: wire.TopicEvents, Timestamp: wire.At(a.Time), Payload: p}
}
