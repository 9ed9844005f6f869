package serve

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

const (
	limitDefault = 100
	limitMost    = 1000
)

// list answers one page of a topic. Its items are the messages themselves, as the WebSocket sent them.
func (s *server) list(topic wire.Topic) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query, err := parameters(r, "limit", "after")
		if err != nil {
			s.refuse(w, err)
			return
		}
		limit, after, err := page(query.Get("limit"), query.Get("after"))
		if err != nil {
			s.refuse(w, err)
			return
		}
		list, err := s.reader.List(r.Context(), topic, after, limit)
		if err != nil {
			s.refuse(w, err)
			return
		}
		s.answer(w, http.StatusOK, list)
	}
}

func (s *server) states(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		s.refuse(w, err)
		return
	}
	list, err := s.reader.List(r.Context(), wire.TopicState, wire.ID{}, limitMost)
	if err != nil {
		s.refuse(w, err)
		return
	}
	s.answer(w, http.StatusOK, list)
}

func (s *server) stats(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r); err != nil {
		s.refuse(w, err)
		return
	}
	stats, err := s.reader.Stats(r.Context())
	if err != nil {
		s.refuse(w, err)
		return
	}
	s.answer(w, http.StatusOK, stats)
}

// parameters refuses what is not allowed: a filter that is misspelt must not look like a filter that found everything.
func parameters(r *http.Request, allowed ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, faultf(http.StatusBadRequest, "the query string is malformed: want name=value&name=value")
	}
	for name, values := range query {
		switch {
		case !slices.Contains(allowed, name) && len(allowed) == 0:
			return nil, faultf(http.StatusBadRequest, "unknown parameter %s: none is known here", quoted(name))
		case !slices.Contains(allowed, name):
			return nil, faultf(http.StatusBadRequest, "unknown parameter %s: want %s", quoted(name), strings.Join(allowed, " or "))
		case len(values) > 1:
			return nil, faultf(http.StatusBadRequest, "parameter %s is given %d times: want it once", quoted(name), len(values))
		}
	}
	return query, nil
}

// page reads limit and after, "" for either's default.
func page(limit, after string) (n int, id wire.ID, err error) {
	n = limitDefault
	if limit != "" {
		n, err = strconv.Atoi(limit)
		if err != nil || n < 1 || n > limitMost {
			return 0, id, faultf(http.StatusBadRequest, "limit %s: want a number from 1 to %d", quoted(limit), limitMost)
		}
	}
	if after != "" {
		if id, err = wire.ParseID(after); err != nil {
			return 0, id, faultf(http.StatusBadRequest, "after %s: want the next of an earlier page, as in 1763640000000-0", quoted(after))
		}
	}
	return n, id, nil
}
