package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Cursor is one subscriber's place in the order of messages. One goroutine calls Next; the other methods may be called
// from any.
type Cursor struct {
	hub   *Hub
	awake chan struct{} // cap 1: something may be there

	mu sync.Mutex
	// at is the newest message looked at, wanted or not.
	at wire.ID
	// since has the topics subscribed to, without all, and the newest id when each was.
	since   map[wire.Topic]wire.ID
	replies []Frame
	waiting int           // bytes of replies
	room    chan struct{} // cap 1: replies were taken
	stats   uint64        // number of the newest stats message given
	foreign bool          // at stems from another journal, and a gap told so
	past    wire.ID       // up to there the cursor was asked for what had been published before

	// Read without mu, which may be held while the journal is read: the hub must not wait for that.
	wantsMessages, wantsStats, draining atomic.Bool
	read                                atomic.Uint64 // at's milliseconds
}

// batch is how many frames Next gives at most, replies and stats aside.
const batch = 64

// mostReplies is how many replies wait before Reply does.
const mostReplies = 64

// mostWaiting is how many bytes of replies wait before Reply does; one reply may be larger.
const mostWaiting = 1 << 20

// Frame is one JSON document for a client.
type Frame struct {
	ID   wire.ID // the message's; zero for what is not journalled
	Body []byte  // shared, never to be changed
}

// NewCursor makes a cursor behind the newest message, without a topic; start is the id of that message. Close it.
func (h *Hub) NewCursor() (c *Cursor, start wire.ID, err error) {
	c = &Cursor{hub: h, awake: make(chan struct{}, 1), room: make(chan struct{}, 1), since: map[wire.Topic]wire.ID{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return nil, wire.ID{}, ErrShutdown
	}
	h.cursors[c] = struct{}{}
	c.at = h.newest()
	c.read.Store(c.at.Millis)
	return c, c.at, nil
}

// Close ends the hub's interest in the cursor; a Next that waits goes on waiting for its ctx.
func (c *Cursor) Close() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	delete(c.hub.cursors, c)
}

func (h *Hub) newest() wire.ID {
	h.ringMu.RLock()
	defer h.ringMu.RUnlock()
	return h.ring.newest
}

// expand gives the topics that a topic stands for; none for one that is not known.
func expand(t wire.Topic) []wire.Topic {
	switch t {
	case wire.TopicAll:
		return wire.Topics[1:]
	case wire.TopicDrifts, wire.TopicEvents, wire.TopicState, wire.TopicStats:
		return []wire.Topic{t}
	}
	return nil
}

// Subscribe adds a topic: from the next message on, or with since, behind that place. reply, unless nil, comes before the
// first of them. A topic that is there already goes on as it did, whatever since says; what other topics gave already is
// not given again.
//
// A place that this journal did not give, because it is of another epoch or lies ahead of everything, is answered with a
// gap, and all that is kept follows.
func (c *Cursor) Subscribe(t wire.Topic, since *wire.Cursor, reply []byte) error {
	topics := expand(t)
	if topics == nil {
		return fmt.Errorf("subscribe to topic %q: unknown", t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replyLocked(reply)
	defer signal(c.awake)
	topics = slices.DeleteFunc(slices.Clone(topics), func(t wire.Topic) bool { _, have := c.since[t]; return have })
	if len(topics) == 0 {
		return nil
	}
	newest := c.hub.newest()
	from := newest
	if since != nil && t != wire.TopicStats { // stats are of the moment
		from = c.placeOf(*since, newest)
	}
	c.moveTo(from, newest)
	for _, t := range topics {
		c.since[t] = from
		if s := c.hub.stats.Load(); t == wire.TopicStats && s != nil {
			c.stats = s.n - 1 // the newest is given at once
		}
	}
	c.wants()
	return nil
}

// placeOf is where a client's cursor stands in this journal.
func (c *Cursor) placeOf(since wire.Cursor, newest wire.ID) wire.ID {
	if (since.Epoch == "" || since.Epoch == c.hub.Epoch()) && (since.ID.Compare(newest) <= 0 || c.hub.justGiven(since.ID)) {
		return since.ID
	}
	if !c.foreign { // else told with the topic before
		c.foreign = true
		c.replyLocked(c.tellGap(wire.Gap{Reason: "other_journal", From: since.ID, Lost: -1}))
	}
	return wire.ID{}
}

// justGiven reports an id that may be on disk and not yet published, so that REST has shown it and the ring has not.
func (h *Hub) justGiven(id wire.ID) bool {
	const window = 10 * time.Second
	now := h.o.Now().UnixMilli()
	return id.Millis <= uint64(max(now, 0)) && id.Millis >= uint64(max(now-window.Milliseconds(), 0))
}

// moveTo has the cursor read from there on. The topics that were there before have given all up to where it stands.
func (c *Cursor) moveTo(from, newest wire.ID) {
	if !c.wantsMessages.Load() {
		c.at = newest
		c.read.Store(c.at.Millis) // a place that a client names may lie before everything: what take gives tells where it is
	}
	if from.Compare(c.at) >= 0 {
		return
	}
	for t, since := range c.since {
		if since.Compare(c.at) < 0 {
			c.since[t] = c.at
		}
	}
	c.at, c.past = from, newest
}

// Place is the newest message that the cursor has looked at: what it gives next lies behind it.
func (c *Cursor) Place() wire.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Unsubscribe takes a topic away; behind reply, unless nil, nothing of it comes.
func (c *Cursor) Unsubscribe(t wire.Topic, reply []byte) error {
	topics := expand(t)
	if topics == nil {
		return fmt.Errorf("unsubscribe from topic %q: unknown", t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range topics {
		delete(c.since, t)
	}
	c.wants()
	c.replyLocked(reply)
	return nil
}

func (c *Cursor) replyLocked(reply []byte) {
	if reply != nil {
		c.replies = append(c.replies, Frame{Body: reply})
		c.waiting += len(reply)
		signal(c.awake)
	}
}

// Reply puts a frame before everything that Next has not yet given. It waits while too many replies stand there, until
// ctx ends.
func (c *Cursor) Reply(ctx context.Context, frame []byte) error {
	if err := c.waitForRoom(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replyLocked(frame)
	return nil
}

func (c *Cursor) waitForRoom(ctx context.Context) error {
	for {
		c.mu.Lock()
		full := len(c.replies) >= mostReplies || c.waiting >= mostWaiting
		c.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-c.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Next waits for frames and gives them in order, a batch at most: replies, then messages, then stats. Its error is ctx's,
// the journal's, or ErrShutdown once the hub shuts down and everything published has been given.
func (c *Cursor) Next(ctx context.Context) ([]Frame, error) {
	for {
		frames, err := c.take(ctx)
		if len(frames) > 0 || err != nil {
			return frames, err
		}
		select {
		case <-c.awake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *Cursor) take(ctx context.Context) ([]Frame, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	frames := c.replies
	if len(frames) > 0 {
		c.replies, c.waiting = nil, 0
		signal(c.room)
	}
	if !c.wantsMessages.Load() {
		frames = c.takeStats(frames)
		return c.ended(frames)
	}
	for len(frames) < batch {
		before := c.at
		var err error
		if frames, err = c.takeMessages(ctx, frames); err != nil {
			return frames, err
		}
		if c.at == before {
			break
		}
	}
	c.read.Store(c.at.Millis)
	frames = c.takeStats(frames)
	return c.ended(frames)
}

// ended reports the shutdown once nothing is left.
func (c *Cursor) ended(frames []Frame) ([]Frame, error) {
	if len(frames) == 0 && c.draining.Load() {
		return nil, ErrShutdown
	}
	return frames, nil
}

// takeMessages moves on through the ring, or through the journal where the ring has already let go of what is next.
func (c *Cursor) takeMessages(ctx context.Context, frames []Frame) ([]Frame, error) {
	c.hub.ringMu.RLock()
	messages, ok := c.hub.ring.after(c.at)
	had := len(frames)
	if ok {
		frames = c.pick(frames, messages)
	}
	newest := c.hub.ring.newest
	c.hub.ringMu.RUnlock()
	if ok {
		c.foreign = false
		if len(frames) > had && c.at.Compare(c.past) > 0 {
			c.hub.delivery.Observe(c.hub.o.Now().Sub(time.UnixMilli(int64(c.at.Millis))).Seconds())
		}
		return frames, nil
	}
	room := batch - len(frames)
	messages, err := c.hub.journal.After(ctx, c.at, c.topics(), room)
	if gap, ok := errors.AsType[*journal.GapError](err); ok {
		return c.gap(frames, gap)
	}
	if err != nil {
		return frames, err
	}
	c.foreign = false
	full := len(messages) == room
	// What is on disk and not yet published comes by the ring: a topic subscribed to in between must not miss it.
	messages = published(messages, newest)
	c.hub.figures.fromJournal.Add(int64(len(messages)))
	frames = c.pick(frames, messages)
	if !full && c.at.Compare(newest) < 0 {
		c.at = newest // the rest up to there is of other topics
	}
	return frames, nil
}

func published(messages []journal.Stored, newest wire.ID) []journal.Stored {
	end := slices.IndexFunc(messages, func(m journal.Stored) bool { return m.ID.Compare(newest) > 0 })
	if end < 0 {
		return messages
	}
	return messages[:end]
}

// pick adds the messages that are wanted, until the batch is full.
func (c *Cursor) pick(frames []Frame, messages []journal.Stored) []Frame {
	for _, m := range messages {
		if len(frames) >= batch {
			break
		}
		c.at = m.ID
		if since, wanted := c.since[m.Topic]; wanted && m.ID.Compare(since) > 0 {
			frames = append(frames, Frame{m.ID, m.Body})
		}
	}
	return frames
}

func (c *Cursor) topics() []wire.Topic {
	var topics []wire.Topic
	for t := range c.since {
		if t != wire.TopicStats {
			topics = append(topics, t)
		}
	}
	slices.Sort(topics)
	return topics
}

// gap tells what is no longer kept and goes on behind it. One that was told at a cursor of another journal is not told
// again.
func (c *Cursor) gap(frames []Frame, g *journal.GapError) ([]Frame, error) {
	from := c.at
	c.at = g.Pruned
	if c.foreign {
		c.foreign = false
		if from = c.lagging(g.Pruned); from.IsZero() {
			return frames, nil
		}
	}
	return append(frames, Frame{Body: c.tellGap(wire.Gap{Reason: "retention", From: from, To: g.Pruned, Lost: -1})}), nil
}

// lagging is the earliest place of this journal before pruned that a topic stands at; zero without one.
func (c *Cursor) lagging(pruned wire.ID) (at wire.ID) {
	for _, t := range c.topics() {
		since := c.since[t]
		if !since.IsZero() && since.Compare(pruned) < 0 && (at.IsZero() || since.Compare(at) < 0) {
			at = since
		}
	}
	return at
}

func (c *Cursor) tellGap(g wire.Gap) []byte {
	c.hub.figures.gaps.Add(1)
	body, err := wire.Encode(wire.Message{
		Type: wire.TypeGap, Timestamp: wire.At(c.hub.o.Now()), Replayed: c.hub.o.Replayed, Payload: g,
	})
	if err != nil { // the payload is wire's own
		c.hub.log.Error("gap not encoded", "error", err)
	}
	return body
}

// takeStats adds the newest stats message if it has not been given, and counts those it overwrote.
func (c *Cursor) takeStats(frames []Frame) []Frame {
	s := c.hub.stats.Load()
	if _, wanted := c.since[wire.TopicStats]; !wanted || s == nil || s.n <= c.stats {
		return frames
	}
	c.hub.figures.statsDropped.Add(int64(s.n - c.stats - 1))
	c.stats = s.n
	return append(frames, Frame{Body: s.body})
}

// wants works out what the hub has to wake the cursor for.
func (c *Cursor) wants() {
	_, stats := c.since[wire.TopicStats]
	c.wantsStats.Store(stats)
	c.wantsMessages.Store(len(c.since) > 1 || len(c.since) == 1 && !stats)
	if !c.wantsMessages.Load() {
		c.foreign = false // its place is given up
	}
}

// drain lets Next give what is there and then end.
func (c *Cursor) drain() {
	c.draining.Store(true)
	signal(c.awake)
}
