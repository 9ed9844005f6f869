package serve

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

const (
	// keepAlive is how often a stream without messages says that it is there: proxies end silent ones, many after 30 s
	// (https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes).
	keepAlive = 15 * time.Second
	// streamWait is how long one batch may take to be written to a stream; a client that does not read is let go.
	streamWait = 10 * time.Second
	// retryAfter is how soon a browser connects again, in milliseconds.
	retryAfter = "2000"
)

// stream serves the feed as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): each
// event's data is one message as the WebSocket sends it, the welcome first. An event's id is its cursor, so that a browser
// that connects again by itself goes on behind the last message it saw.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	topics, since, err := streamOf(r)
	if err != nil {
		s.refuse(w, err)
		return
	}
	if r.Method == http.MethodHead { // nothing written would ever fail: the stream would outlive its client
		newEvents(w, s.hub.Epoch())
		return
	}
	cursor, start, err := s.hub.NewCursor()
	if err != nil {
		s.refuse(w, err)
		return
	}
	defer cursor.Close()
	for _, t := range topics {
		if err := cursor.Subscribe(t, since, nil); err != nil {
			s.refuse(w, err)
			return
		}
	}
	out := newEvents(w, s.hub.Epoch())
	out.add(s.encode(s.welcome(uuid.NewString(), start)), cursor.Place()) // the client's place until a message comes
	for err == nil {
		var frames []hub.Frame
		if err = out.send(); err == nil {
			frames, err = nextFrames(r.Context(), cursor)
		}
		for _, f := range frames {
			if f.ID.IsZero() {
				out.add(f.Body)
			} else {
				out.add(f.Body, f.ID)
			}
		}
	}
	if r.Context().Err() == nil && !errors.Is(err, hub.ErrShutdown) {
		s.log.Info("stream ended", "cause", err)
	}
}

// streamOf reads what a stream is to give. The header that a browser sends when it connects again counts before the
// address, which is still that of its first time.
func streamOf(r *http.Request) (topics []wire.Topic, since *wire.Cursor, err error) {
	given, err := parameters(r, nil, "topics", "since", "epoch")
	if err != nil {
		return nil, nil, err
	}
	names := given.Get("topics")
	if names == "" {
		names = string(wire.TopicAll)
	}
	for name := range strings.SplitSeq(names, ",") {
		topic, err := topicOf(name)
		if err != nil {
			return nil, nil, err
		}
		topics = append(topics, topic)
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		since, err = sinceOf(last, "")
	} else {
		since, err = sinceOf(given.Get("since"), given.Get("epoch"))
	}
	return topics, since, err
}

// nextFrames waits for frames, but not longer than a silence may last.
func nextFrames(ctx context.Context, c *hub.Cursor) ([]hub.Frame, error) {
	wait, stop := context.WithTimeout(ctx, keepAlive)
	defer stop()
	frames, err := c.Next(wait)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return frames, nil
	}
	return frames, err
}

// events writes frames in the form of an event stream.
type events struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	epoch  string
	buffer []byte
}

func newEvents(w http.ResponseWriter, epoch string) *events {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold messages back
	return &events{w: w, rc: http.NewResponseController(w), epoch: epoch, buffer: []byte("retry: " + retryAfter + "\n\n")}
}

// add puts one message behind the others, with its id if it has one. It is one line, as wire.Encode makes it.
func (e *events) add(body []byte, id ...wire.ID) {
	for _, id := range id {
		e.buffer = append(e.buffer, "id: "+wire.Cursor{Epoch: e.epoch, ID: id}.String()+"\n"...)
	}
	e.buffer = append(e.buffer, "data: "...)
	e.buffer = append(append(e.buffer, body...), "\n\n"...)
}

// send writes what was added, or a comment if nothing was.
func (e *events) send() error {
	if len(e.buffer) == 0 {
		e.buffer = append(e.buffer, ":\n\n"...)
	}
	if err := e.rc.SetWriteDeadline(time.Now().Add(streamWait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := e.w.Write(e.buffer)
	e.buffer = e.buffer[:0]
	if err != nil {
		return err
	}
	return e.rc.Flush()
}
