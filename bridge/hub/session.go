package hub

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

const (
	// window is how many frames of a session are under way in melody at most.
	window = 32
	// queue is melody's: it never fills, because only the pump writes to it.
	queue = window + 1
	// MaxMessage is how large a message of a client may be, in bytes; a larger one ends the session with 1009.
	MaxMessage = 64 << 10
	// closeWait is how long a peer may take to answer a close frame, and how long what it still sends is read.
	closeWait = time.Second
)

// Protocol is what one session says; the hub only carries it. Its methods are called one at a time.
type Protocol interface {
	// Welcome gives the first frame; start is the newest message when the session began.
	Welcome(s *Session, start wire.ID) []byte
	Text(s *Session, text []byte) // not checked to be UTF-8
	Binary(s *Session)
}

// Endpoint upgrades requests to sessions that speak one protocol.
type Endpoint struct {
	hub      *Hub
	melody   *melody.Melody
	protocol func() Protocol
}

const sessionKey = "session"

// Endpoint makes an endpoint; protocol is called once for each session. The caller checks a request's Host before Connect; Origin is checked again here.
func (h *Hub) Endpoint(protocol func() Protocol) *Endpoint {
	e := &Endpoint{hub: h, melody: melody.New(), protocol: protocol}
	m := e.melody
	m.Upgrader.CheckOrigin = nil // gorilla's own: absent, or the same host as the request's
	m.Config.PingPeriod, m.Config.PongWait, m.Config.WriteWait = h.o.PingPeriod, h.o.PongWait, h.o.WriteWait
	m.Config.MaxMessageSize, m.Config.MessageBufferSize = MaxMessage, queue
	m.HandleConnect(func(ms *melody.Session) { of(ms).begin(ms) })
	m.HandleDisconnect(func(ms *melody.Session) { of(ms).end() })
	m.HandleSentMessage(func(ms *melody.Session, frame []byte) { of(ms).written(frame) })
	m.HandleError(func(ms *melody.Session, err error) { of(ms).failed(err) })
	m.HandleMessage(func(ms *melody.Session, text []byte) {
		if s := of(ms); !s.isClosing() {
			s.protocol.Text(s, text)
		}
	})
	m.HandleMessageBinary(func(ms *melody.Session, _ []byte) {
		if s := of(ms); !s.isClosing() {
			s.protocol.Binary(s)
		}
	})
	return e
}

func of(ms *melody.Session) *Session { return ms.Keys[sessionKey].(*Session) }

// Connect upgrades the request and serves the session until it ends. Before the upgrade it returns ErrShutdown, and
// nothing has been answered; for a request that is no proper upgrade, it has.
func (e *Endpoint) Connect(w http.ResponseWriter, r *http.Request) error {
	s, err := e.hub.newSession(e.protocol())
	if err != nil {
		return err
	}
	defer e.hub.endSession(s)
	return e.melody.HandleRequestWithKeys(w, r, map[string]any{sessionKey: s})
}

func (h *Hub) newSession(p Protocol) (*Session, error) {
	c, start, err := h.NewCursor()
	if err != nil {
		return nil, err
	}
	s := &Session{
		cursor: c, hub: h, id: uuid.NewString(), start: start, protocol: p, pumped: make(chan struct{}),
		credits: make(chan struct{}, window),
	}
	s.life, s.die = context.WithCancel(context.Background())
	s.sending, s.stop = context.WithCancel(s.life)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		s.die()
		delete(h.cursors, c)
		return nil, ErrShutdown
	}
	h.sessions[s] = struct{}{}
	h.live.Add(1)
	return s, nil
}

func (h *Hub) endSession(s *Session) {
	s.die()
	h.mu.Lock()
	delete(h.cursors, s.cursor)
	delete(h.sessions, s)
	h.mu.Unlock()
	h.live.Done()
}

// Session is one WebSocket connection: a cursor, and the pump that writes what it gives.
type Session struct {
	cursor   *Cursor
	hub      *Hub
	id       string
	start    wire.ID
	protocol Protocol
	melody   *melody.Session // set by begin, before the pump and any handler

	// credits holds values for each frame under way in melody, as many as weight gives.
	credits chan struct{}
	// life ends when the connection has; sending, within it, when nothing more is to be sent but a close frame.
	life    context.Context
	die     context.CancelFunc
	sending context.Context
	stop    context.CancelFunc
	pumped  chan struct{} // closed when the pump has ended

	mu    sync.Mutex
	code  int // close code to send, 0 for none yet
	text  string
	cause string // of the end: the first one known
}

// ID is the session's UUID.
func (s *Session) ID() string { return s.id }

// Subscribe adds a topic; see Cursor.Subscribe. It waits while too many replies wait to be read, as all of Subscribe,
// Unsubscribe and Reply do, which keeps a client that asks without reading from being read any further.
func (s *Session) Subscribe(t wire.Topic, since *wire.Cursor, reply []byte) error {
	if err := s.cursor.waitForRoom(s.life); err != nil {
		return err
	}
	return s.cursor.Subscribe(t, since, reply)
}

// Unsubscribe takes a topic away; see Cursor.Unsubscribe.
func (s *Session) Unsubscribe(t wire.Topic, reply []byte) error {
	if err := s.cursor.waitForRoom(s.life); err != nil {
		return err
	}
	return s.cursor.Unsubscribe(t, reply)
}

// Reply sends a frame to this session alone; see Cursor.Reply.
func (s *Session) Reply(frame []byte) error { return s.cursor.Reply(s.life, frame) }

// Context ends with the session.
func (s *Session) Context() context.Context { return s.life }

// Alive extends the time in which the peer must be heard of, as its pongs do.
func (s *Session) Alive() {
	_ = s.melody.WebsocketConnection().SetReadDeadline(time.Now().Add(s.hub.o.PongWait)) // a dead socket tells by itself
}

// Close ends the session with a close code: what melody already has is written before it, replies and messages that wait
// are not. It returns at once; nothing further that the peer sends is handled. cause is a word for the metrics.
func (s *Session) Close(code int, text, cause string) {
	s.closeWith(code, text, cause)
	s.stopSending()
}

func (s *Session) closeWith(code int, text, cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.code == 0 {
		s.code, s.text = code, text
	}
	s.setCause(cause)
}

// setCause is called under mu.
func (s *Session) setCause(cause string) {
	if s.cause == "" {
		s.cause = cause
	}
}

func (s *Session) stopSending() { s.stop() }

// goAway has the session end once it has read what is published.
func (s *Session) goAway() {
	s.closeWith(websocket.CloseGoingAway, "server shutdown", "shutdown")
	s.cursor.drain()
}

// cut ends the connection without a word.
func (s *Session) cut() {
	s.die()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.melody != nil {
		_ = s.melody.WebsocketConnection().Close() // closed already is well
	}
}

func (s *Session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code != 0
}

// begin runs before melody reads or writes.
func (s *Session) begin(ms *melody.Session) {
	s.mu.Lock()
	s.melody = ms
	s.mu.Unlock()
	if s.life.Err() != nil { // cut before there was a connection to cut
		_ = ms.WebsocketConnection().Close()
	}
	s.hub.figures.opened.Add(1)
	s.cursor.mu.Lock()
	s.cursor.replyLocked(s.protocol.Welcome(s, s.start))
	s.cursor.mu.Unlock()
	go s.pump()
}

// end runs when melody has stopped reading; it waits for the pump.
func (s *Session) end() {
	s.die()
	<-s.pumped
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setCause("lost")
	s.hub.figures.countClosed(s.cause)
}

// pump hands frames to melody, as many as are written, and then closes the connection properly.
func (s *Session) pump() {
	defer close(s.pumped)
	for {
		frames, err := s.cursor.Next(s.sending)
		if sendErr := s.send(frames); sendErr != nil {
			err = sendErr
		}
		if err != nil {
			s.finish(err)
			return
		}
	}
}

func (s *Session) send(frames []Frame) error {
	for _, f := range frames {
		for range weight(f.Body) {
			select {
			case s.credits <- struct{}{}:
			case <-s.sending.Done():
				return s.sending.Err()
			}
		}
		_ = s.melody.Write(f.Body) // says only that the session is closed, which life says too
	}
	return nil
}

// weight is how many credits a frame takes: large frames, of queries, are few at a time.
func weight(frame []byte) int { return min(1+len(frame)>>16, window) }

// finish says goodbye with the code that was asked for, and waits for the peer to answer, so that the socket is not shut
// while the close frame or the peer's own frames are under way.
func (s *Session) finish(err error) {
	if s.life.Err() != nil {
		return
	}
	s.mu.Lock()
	if s.code == 0 { // the journal could not be read
		s.hub.log.Error("session ends", "error", err, "client_id", s.id)
		s.code, s.text = websocket.CloseInternalServerErr, "internal error"
		s.setCause("internal")
	}
	code, text := s.code, s.text
	s.mu.Unlock()

	s.flush()
	conn := s.melody.WebsocketConnection()
	wait := time.Now().Add(closeWait)
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), wait) // gone already is well
	timer := time.NewTimer(time.Until(wait))
	defer timer.Stop()
	select {
	case <-s.life.Done():
	case <-timer.C:
		_ = conn.Close()
	}
}

// flush waits until melody has written what it has, for closeWait at most.
func (s *Session) flush() {
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	for range window {
		select {
		case s.credits <- struct{}{}:
		case <-timer.C:
			return
		case <-s.life.Done():
			return
		}
	}
}

// written gives a frame's credits back.
func (s *Session) written(frame []byte) {
	s.hub.figures.sent.Add(1)
	for range weight(frame) {
		<-s.credits
	}
}

// failed hears of melody's errors, from its reading and its writing goroutine; after any of them melody ends the session.
// It must not call melody's Close. Ending life here frees a handler that waits for room for a reply: melody reads on, and
// so notices the end, only when that returns.
func (s *Session) failed(err error) {
	cause, told := s.causeOf(err)
	s.mu.Lock()
	s.setCause(cause)
	s.mu.Unlock()
	s.die()
	switch {
	case told:
		s.linger()
	case errors.Is(err, melody.ErrMessageBufferFull):
		s.hub.figures.dropped.Add(1)
		s.hub.log.Error("melody dropped a frame", "client_id", s.id)
		s.cut()
	}
}

// causeOf names the cause of an end; told says that gorilla found fault with what was read and has sent a close frame.
func (s *Session) causeOf(err error) (cause string, told bool) {
	if e, ok := errors.AsType[*websocket.CloseError](err); ok && e.Code != websocket.CloseAbnormalClosure {
		return "client", false
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return s.timeoutCause(), false
	}
	switch {
	case errors.Is(err, websocket.ErrReadLimit):
		return "too_large", true
	case isProtocolError(err):
		return "protocol", true
	}
	return "lost", false
}

// isProtocolError: gorilla has no type for these, so what has one is excluded.
func isProtocolError(err error) bool {
	_, isNet := errors.AsType[net.Error](err)
	_, isClose := errors.AsType[*websocket.CloseError](err)
	for _, other := range []error{
		websocket.ErrCloseSent, melody.ErrWriteClosed, melody.ErrMessageBufferFull, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, other) {
			return false
		}
	}
	return !isNet && !isClose
}

// timeoutCause tells a peer that does not read from one that is silent: only the former has frames under way.
func (s *Session) timeoutCause() string {
	if len(s.credits) > 0 {
		return "slow"
	}
	return "silent"
}

// linger reads what a peer goes on sending after it was told to stop: shutting a socket with unread bytes resets it, and
// the peer would not see the close code.
func (s *Session) linger() {
	conn := s.melody.WebsocketConnection().NetConn()
	_ = conn.SetReadDeadline(time.Now().Add(closeWait))
	_, _ = io.CopyN(io.Discard, conn, 1<<20)
}
