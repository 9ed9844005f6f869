package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// RulesFile is a Falco rules file. Only what our files use is known; any other key is an error.
type RulesFile struct {
	Engine  string            // required_engine_version
	Plugins map[string]string // required_plugin_versions: name to version
	Lists   map[string][]string
	Macros  map[string]string // name to condition, as written
	Rules   []Rule            // in their order, which is that of `rule_matching: first`
	Unused  []string          // lists and macros that nothing refers to
}

// Rule is one rule.
type Rule struct {
	Name, Desc, Condition, Output, Priority, Source string
	Tags                                            []string
	// Filter is Condition with all macros and lists put in: what sysdig takes.
	Filter string
}

// item is one element of the file.
type item struct {
	Engine  string `yaml:"required_engine_version"`
	Plugins []struct {
		Name    string `yaml:"name"`
		Version string `yaml:"version"`
	} `yaml:"required_plugin_versions"`
	List      string   `yaml:"list"`
	Items     []string `yaml:"items"`
	Macro     string   `yaml:"macro"`
	Rule      string   `yaml:"rule"`
	Desc      string   `yaml:"desc"`
	Condition string   `yaml:"condition"`
	Output    string   `yaml:"output"`
	Priority  string   `yaml:"priority"`
	Source    string   `yaml:"source"`
	Tags      []string `yaml:"tags"`
}

// ReadRules reads a rules file and expands its conditions. Like Falco it lets a name be used only after its definition.
func ReadRules(text []byte) (*RulesFile, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var items []item
	if err := decoder.Decode(&items); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	f := &RulesFile{Plugins: map[string]string{}, Lists: map[string][]string{}, Macros: map[string]string{}}
	x := &expander{file: f, macros: map[string]string{}, used: map[string]bool{}}
	for i, it := range items {
		if err := x.add(it); err != nil {
			return nil, fmt.Errorf("read rules: item %d: %w", i+1, err)
		}
	}
	for name := range f.Lists {
		f.Unused = append(f.Unused, name)
	}
	for name := range f.Macros {
		f.Unused = append(f.Unused, name)
	}
	f.Unused = slices.DeleteFunc(f.Unused, func(name string) bool { return x.used[name] })
	slices.Sort(f.Unused)
	return f, nil
}

// expander puts macros and lists into conditions.
type expander struct {
	file   *RulesFile
	macros map[string]string // expanded
	used   map[string]bool
}

func (x *expander) add(it item) (err error) {
	f := x.file
	switch {
	case it.Engine != "":
		f.Engine = it.Engine
	case it.Plugins != nil:
		for _, p := range it.Plugins {
			f.Plugins[p.Name] = p.Version
		}
	case it.List != "":
		f.Lists[it.List] = it.Items
	case it.Macro != "":
		f.Macros[it.Macro] = it.Condition
		if x.macros[it.Macro], err = x.expand(it.Condition); err != nil {
			return fmt.Errorf("macro %q: %w", it.Macro, err)
		}
	case it.Rule != "":
		r := Rule{Name: it.Rule, Desc: it.Desc, Condition: it.Condition, Output: it.Output, Priority: it.Priority, Source: it.Source, Tags: it.Tags}
		if r.Filter, err = x.expand(it.Condition); err != nil {
			return fmt.Errorf("rule %q: %w", it.Rule, err)
		}
		f.Rules = append(f.Rules, r)
	default:
		return errors.New("neither a rule, a macro, a list nor a requirement")
	}
	return nil
}

func (x *expander) expand(condition string) (string, error) {
	p := &parser{expander: x, tokens: tokens.FindAllString(condition, -1)}
	p.either()
	if p.err == nil && p.peek() != "" {
		p.fail("want and, or or the end, not %q", p.peek())
	}
	return strings.Join(p.out, " "), p.err
}

// tokens splits a condition: quoted text, parentheses and commas, comparisons, and words.
var tokens = regexp.MustCompile(`'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[(),]|[=!<>]=?|[^\s(),=!<>'"]+`)

// parser follows the grammar of conditions (https://falco.org/docs/concepts/rules/conditions/) and writes them out again,
// the names replaced.
type parser struct {
	*expander
	tokens []string
	out    []string
	err    error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	p.tokens = nil
}

func (p *parser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

// take moves one token to the output.
func (p *parser) take() {
	p.out = append(p.out, p.next())
}

func (p *parser) next() string {
	token := p.peek()
	if token == "" {
		p.fail("the condition ends too early")
		return ""
	}
	p.tokens = p.tokens[1:]
	return token
}

func (p *parser) want(token string) {
	if got := p.peek(); got != token {
		p.fail("want %q, not %q", token, got)
		return
	}
	p.take()
}

func (p *parser) either() {
	for p.all(); p.err == nil && p.peek() == "or"; p.all() {
		p.take()
	}
}

func (p *parser) all() {
	for p.operand(); p.err == nil && p.peek() == "and"; p.operand() {
		p.take()
	}
}

func (p *parser) operand() {
	switch token := p.peek(); {
	case token == "not":
		p.take()
		p.operand()
	case token == "(":
		p.take()
		p.either()
		p.want(")")
	case len(p.tokens) > 1 && slices.Contains(operators, p.tokens[1]):
		p.take()
		p.comparison()
	case p.isMacro(token):
		p.used[p.next()] = true
		p.out = append(p.out, "(", p.macros[token], ")")
	default:
		p.fail("no macro %q is defined before", token)
	}
}

func (p *parser) isMacro(name string) bool {
	_, ok := p.macros[name]
	return ok
}

// operators are those that our rules may use; every Falco that loads the plugin has them.
var operators = []string{
	"=", "!=", "<", "<=", ">", ">=", "exists", "in", "intersects", "pmatch", "contains", "icontains", "startswith",
	"endswith", "glob", "iglob", "regex",
}

func (p *parser) comparison() {
	operator := p.peek()
	p.take()
	switch operator {
	case "exists":
	case "in", "intersects", "pmatch":
		p.want("(")
		p.values()
		p.want(")")
	default:
		if slices.Contains([]string{"(", ")", ",", "and", "or", ""}, p.peek()) {
			p.fail("want a value after %s, not %q", operator, p.peek())
			return
		}
		p.value()
	}
}

// value writes a value, or val(field), the field to compare with: no space may follow val.
func (p *parser) value() {
	if p.peek() != "val" || len(p.tokens) == 1 || p.tokens[1] != "(" {
		p.take()
		return
	}
	name := p.next() + p.next() + p.next()
	if p.peek() != ")" {
		p.fail("want %q, not %q", ")", p.peek())
		return
	}
	p.out = append(p.out, name+p.next())
}

// values writes the values in parentheses, those of lists in the place of their names.
func (p *parser) values() {
	for {
		value := p.next()
		if items, ok := p.file.Lists[value]; ok {
			p.used[value] = true
			value = joined(items)
		}
		p.out = append(p.out, value)
		if p.err != nil || p.peek() != "," {
			return
		}
		p.take()
	}
}

func joined(items []string) string {
	values := slices.Clone(items)
	for i, v := range values {
		if strings.ContainsAny(v, "()\"' \t\n=,") {
			values[i] = `"` + strings.ReplaceAll(v, `"`, `\"`) + `"`
		}
	}
	return strings.Join(values, ", ")
}
