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

// list answers one page of what there is. Its items are the messages themselves, as the WebSocket sent them, or states.
func (s *server) list(what wire.Topic) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := queryOf(r, what)
		if err != nil {
			s.refuse(w, err)
			return
		}
		list, err := s.reader.List(r.Context(), q)
		if err != nil {
			s.refuse(w, err)
			return
		}
		s.answer(w, http.StatusOK, list)
	}
}

// queryOf reads limit, after and filters, of which each may be given several times: any of its texts will do.
func queryOf(r *http.Request, what wire.Topic) (q wire.Query, err error) {
	names := wire.FilterNames(what)
	given, err := parameters(r, names, "limit", "after")
	if err != nil {
		return q, err
	}
	q = wire.Query{What: what, Limit: limitDefault, After: given.Get("after"), Filter: wire.Filter{}}
	if limit := given.Get("limit"); limit != "" {
		if q.Limit, err = strconv.Atoi(limit); err != nil {
			return q, badRequest("limit %s: want a number from 1 to %d", quoted(limit), limitMost)
		}
	}
	for _, name := range names {
		if texts := given[name]; len(texts) > 0 {
			q.Filter[name] = texts
		}
	}
	return q, checkQuery(q)
}

// checkQuery finds fault with a query, however it was asked.
func checkQuery(q wire.Query) error {
	if err := q.Check(); err != nil {
		return badRequest("%v, as in %s", err, queryExample)
	}
	if q.Limit < 1 || q.Limit > limitMost {
		return badRequest("limit \"%d\": want a number from 1 to %d", q.Limit, limitMost)
	}
	if q.After == "" || q.What == wire.TopicState {
		return nil
	}
	if _, err := wire.ParseID(q.After); err != nil {
		return badRequest("after %s: want the next of an earlier page, as in 1763640000000-0", quoted(q.After))
	}
	return nil
}

func (s *server) stats(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r, nil); err != nil {
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

// parameters refuses what is not allowed: a filter that is misspelt must not look like a filter that found everything. The
// parameters in many may be given several times.
func parameters(r *http.Request, many []string, once ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query string is malformed: want name=value&name=value")
	}
	allowed := slices.Concat(once, many)
	for name, values := range query {
		switch {
		case !slices.Contains(allowed, name) && len(allowed) == 0:
			return nil, badRequest("unknown parameter %s: none is known here", quoted(name))
		case !slices.Contains(allowed, name):
			return nil, badRequest("unknown parameter %s: want %s", quoted(name), strings.Join(allowed, ", "))
		case len(values) > 1 && slices.Contains(once, name):
			return nil, badRequest("parameter %s is given %d times: want it once", quoted(name), len(values))
		}
	}
	return query, nil
}
