package tfstate

import (
	"strconv"
	"strings"
	"unicode"
)

// quoteKey writes a key as Terraform prints it: a quoted HCL template without interpolation
// (https://github.com/hashicorp/terraform/blob/main/internal/addrs/instance_key.go).
func quoteKey(key string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range key {
		switch r {
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		case '"':
			b.WriteString(`\"`)
		case '\\':
			b.WriteString(`\\`)
		case '$', '%':
			b.WriteRune(r)
			if strings.HasPrefix(key[i+1:], "{") {
				b.WriteRune(r) // else it would begin an interpolation
			}
		default:
			writePrintable(&b, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func writePrintable(b *strings.Builder, r rune) {
	switch {
	case unicode.IsPrint(r):
		b.WriteRune(r)
	case r < 0x10000:
		b.WriteString(`\u` + digits(r, 4))
	default:
		b.WriteString(`\U` + digits(r, 8))
	}
}

func digits(r rune, n int) string {
	s := strconv.FormatInt(int64(r), 16)
	return strings.Repeat("0", n-len(s)) + s
}

// unquoteKey reads what quoteKey writes; false for anything else.
func unquoteKey(quoted string) (string, bool) {
	if len(quoted) < 2 || quoted[0] != '"' || quoted[len(quoted)-1] != '"' {
		return "", false
	}
	var b strings.Builder
	for s := quoted[1 : len(quoted)-1]; s != ""; {
		switch c := s[0]; c {
		case '\\', '"':
			r, _, rest, err := strconv.UnquoteChar(s, '"')
			if err != nil {
				return "", false
			}
			b.WriteRune(r)
			s = rest
		case '$', '%':
			n := len(s) - len(strings.TrimLeft(s, string(c)))
			run := n
			if n > 1 && strings.HasPrefix(s[n:], "{") {
				run-- // the sign that was doubled
			}
			b.WriteString(s[:run])
			s = s[n:]
		default:
			b.WriteByte(c)
			s = s[1:]
		}
	}
	return b.String(), true
}
