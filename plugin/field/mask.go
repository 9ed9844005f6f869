package field

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// secrets are the values of one record that must not leave the plugin as they are.
type secrets struct {
	known  []string        // texts, as the states have them
	hashed map[string]bool // the record's own values, as they were redacted
	all    bool            // the record has a value that cannot be told from its others
}

// leastPart is from how many bytes on a secret is looked for within longer texts, not only as the whole of one.
const leastPart = 8

func (s *secrets) none() bool { return len(s.known) == 0 && len(s.hashed) == 0 && !s.all }

// holds reports whether a scalar is or has a secret; redacted is the scalar redacted.
func (s *secrets) holds(scalar, redacted jsontext.Value) bool {
	if s.all || s.hashed[trail.Text(redacted)] {
		return true
	}
	text := trail.Text(scalar)
	for _, secret := range s.known {
		if text == secret || len(secret) >= leastPart && strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// findSecrets gathers what the states mark as sensitive of the instances that the record is about: the values they have,
// and the new ones, which only their redacted form tells. A new value that no scalar of the request matches may be
// spread over several.
func (x *Extractor) findSecrets() *secrets {
	s := &secrets{hashed: map[string]bool{}}
	missing := map[string]bool{}
	for _, t := range x.targets() {
		for _, path := range t.Instance.Sensitive {
			v, _ := t.Instance.Get(path)
			_ = eachToken(v, func(token jsontext.Token, scalar jsontext.Value) error {
				if scalar == nil || token.Kind() != '"' && token.Kind() != '0' || token.String() == "" {
					return nil
				}
				s.known = append(s.known, token.String())
				if token.Kind() == '"' { // as it stands in a text that is itself JSON
					if inner := string(scalar[1 : len(scalar)-1]); inner != token.String() {
						s.known = append(s.known, inner)
					}
				}
				return nil
			})
		}
		for _, a := range t.Attributes {
			if a.Sensitive && a.New != nil {
				s.hashed[trail.Text(a.New)], missing[trail.Text(a.New)] = true, true
			}
		}
	}
	_ = eachToken(x.record.Request, func(_ jsontext.Token, scalar jsontext.Value) error {
		if scalar != nil && len(missing) > 0 {
			delete(missing, trail.Text(x.redactor.Value(scalar)))
		}
		return nil
	})
	s.all = len(missing) > 0
	return s
}

// mask replaces the scalars in v that are sensitive, if the record is about an instance with any.
func (x *Extractor) mask(v jsontext.Value) jsontext.Value {
	if x.resolver == nil {
		return v
	}
	if x.secrets == nil {
		x.secrets = x.findSecrets()
	}
	if x.secrets.none() {
		return v
	}
	var out bytes.Buffer
	encoder := jsontext.NewEncoder(&out, lenient)
	err := eachToken(v, func(token jsontext.Token, scalar jsontext.Value) error {
		if scalar != nil {
			if redacted := x.redactor.Value(scalar); x.secrets.holds(scalar, redacted) {
				return encoder.WriteValue(redacted)
			}
		}
		return encoder.WriteToken(token)
	})
	if err != nil {
		return jsontext.Value(`"(sensitive)"`) // better all masked than a part shown
	}
	return bytes.TrimSpace(out.Bytes())
}

// maskText hides a text that is or has a secret. A new value is known by its hash alone, so a text that may quote the
// request is hidden whole where there is one.
func (x *Extractor) maskText(s string, quotes bool) string {
	if s == "" || x.resolver == nil || x.record == nil {
		return s
	}
	if x.secrets == nil {
		x.secrets = x.findSecrets()
	}
	if quotes && (x.secrets.all || len(x.secrets.hashed) > 0) {
		return "(sensitive)"
	}
	for _, secret := range x.secrets.known {
		if s == secret || len(secret) >= leastPart && strings.Contains(s, secret) {
			quoted, _ := jsontext.AppendQuote(nil, secret)
			s = strings.ReplaceAll(s, secret, trail.Text(x.redactor.Value(quoted)))
		}
	}
	return s
}

// eachToken walks v; scalar is nil for brackets, names and null.
func eachToken(v jsontext.Value, each func(token jsontext.Token, scalar jsontext.Value) error) error {
	d := jsontext.NewDecoder(bytes.NewReader(v), lenient)
	for d.PeekKind() != jsontext.KindInvalid {
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		var scalar jsontext.Value
		parent, length := d.StackIndex(d.StackDepth())
		switch isName := parent == '{' && length%2 == 1; {
		case token.Kind() == '"' && !isName:
			if scalar, err = jsontext.AppendQuote(nil, token.String()); err != nil {
				return err
			}
		case token.Kind() == '0', token.Kind() == 't', token.Kind() == 'f':
			scalar = jsontext.Value(token.String())
		}
		if err := each(token, scalar); err != nil {
			return err
		}
	}
	return nil
}
