package correlate

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// tell journals one serial: the state's row, a message for every instance that changed and every finding, and what is
// kept of it for later. A serial that was told before the bridge started again has a row only.
func (c *Correlator) tell(ctx context.Context, s inventory.Serial) error {
	commit := journal.Commit{States: []wire.State{{
		URI: s.State, Serial: s.Serial, Lineage: s.Lineage, Terraform: s.Terraform, Resources: int64(s.Instances),
		Written: wire.At(s.Written), Read: wire.At(time.Now()),
	}}}
	delete(c.faults, s.State)
	for _, f := range s.Findings {
		commit.Messages = append(commit.Messages, stateMessage(s, wire.StateChange{Action: f.Kind, Detail: f.Detail}))
	}
	for _, ch := range s.Changes {
		commit.Messages = append(commit.Messages, stateMessage(s, change(ch)))
	}
	if !s.Again {
		c.metrics.serials.Inc()
	}
	c.log.Info("serial read", "state", s.State, "serial", s.Serial, "previous", s.Previous, "first", s.First, "again", s.Again,
		"instances", s.Instances, "changes", len(s.Changes))
	if s.Keep == nil {
		return c.commit(ctx, commit) // nobody hands it over again
	}
	kept, err := c.snapshot(ctx, s.Keep)
	if err != nil {
		return err
	}
	commit.Snapshots = []journal.Snapshot{kept}
	if err := c.commit(ctx, commit); err != nil {
		return err
	}
	return c.again(ctx, func(ctx context.Context) error { return c.journal.PruneHistory(ctx, s.State) })
}

func stateMessage(s inventory.Serial, p wire.StateChange) wire.Message {
	p.Serial, p.Previous, p.State, p.Lineage, p.Written = s.Serial, s.Previous, s.State, s.Lineage, wire.At(s.Written)
	origin := s.Lineage
	if origin == "" {
		origin = s.State
	}
	p.ChangeID = digest(origin, strconv.FormatUint(s.Previous, 10), strconv.FormatUint(s.Serial, 10), p.Resource, p.Action, p.Detail)
	return wire.Message{Type: wire.TypeStateChange, Topic: wire.TopicState, Timestamp: wire.At(s.Written), Payload: p}
}

func change(ch tfstate.Change) wire.StateChange {
	p := wire.StateChange{
		Resource: ch.Address.String(), Action: string(ch.Action), ResourceType: ch.Type, ResourceID: ch.ID,
	}
	if ch.Previous != (tfstate.Address{}) && ch.Previous != ch.Address {
		p.PreviousAddress = ch.Previous.String()
	}
	for _, a := range ch.Attributes {
		p.Attributes = append(p.Attributes, wire.Change{
			Attribute: string(a.Path), Old: orNull(a.Old, true), New: orNull(a.New, true),
			OldKnown: true, NewKnown: true, Sensitive: a.Sensitive,
		})
	}
	return p
}

// tellFaults brings the rows of states that cannot be read, or can be again, up to date. One that was never read and that
// nobody speaks of any more, such as a broken file that was taken away, has no row.
func (c *Correlator) tellFaults(ctx context.Context) error {
	var commit journal.Commit
	heard := map[string]bool{}
	for _, info := range c.inventory.States() {
		heard[info.State] = true
		fault := ""
		if info.Fault != nil {
			fault = info.Fault.Error()
		}
		if c.faults[info.State] == fault {
			continue
		}
		c.faults[info.State] = fault
		commit.States = append(commit.States, wire.State{
			URI: info.State, Serial: info.Serial, Lineage: info.Lineage, Terraform: info.Terraform,
			Resources: int64(info.Instances), Written: wire.At(info.Written), Read: wire.At(info.Read), Fault: fault,
		})
	}
	for uri, fault := range c.faults {
		if heard[uri] {
			continue
		}
		delete(c.faults, uri)
		if fault != "" {
			commit.Gone = append(commit.Gone, uri)
		}
	}
	if len(commit.States)+len(commit.Gone) == 0 {
		return nil
	}
	slices.SortFunc(commit.States, func(a, b wire.State) int { return strings.Compare(a.URI, b.URI) })
	return c.commit(ctx, commit)
}

// earlierFaults takes over what an earlier run told of states that were never read.
func (c *Correlator) earlierFaults(ctx context.Context) error {
	stored, err := c.journal.States(ctx)
	for _, s := range stored {
		if _, told := c.faults[s.URI]; !told && s.Fault != "" && s.Written.IsZero() {
			c.faults[s.URI] = s.Fault
		}
	}
	return err
}
