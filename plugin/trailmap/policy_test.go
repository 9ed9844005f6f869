package trailmap_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// TestPoliciesAreComparedAsIAMReadsThem: each pair means the same, or does not.
func TestPoliciesAreComparedAsIAMReadsThem(t *testing.T) {
	for name, c := range map[string]struct {
		state, request string
		same           bool
	}{
		"order":               {`{"Statement":[{"Action":["a:b","c:d"],"Effect":"Allow"},{"Effect":"Deny"}]}`, `{"Statement":[{"Effect":"Deny"},{"Effect":"Allow","Action":["c:d","a:b"]}]}`, true},
		"a list of one":       {`{"Statement":[{"Resource":["x"]}]}`, `{"Statement":{"Resource":"x"}}`, true},
		"everyone":            {`{"Statement":{"Principal":"*"}}`, `{"Statement":{"Principal":{"AWS":"*"}}}`, true},
		"an action's case":    {`{"Statement":{"Action":"s3:GetObject"}}`, `{"Statement":{"Action":"S3:getobject"}}`, true},
		"a condition's truth": {`{"Statement":{"Condition":{"Bool":{"aws:SecureTransport":false}}}}`, `{"Statement":{"Condition":{"Bool":{"aws:SecureTransport":"false"}}}}`, true},
		"a resource's case":   {`{"Statement":{"Resource":"x"}}`, `{"Statement":{"Resource":"X"}}`, false},
		"another effect":      {`{"Statement":{"Effect":"Allow"}}`, `{"Statement":{"Effect":"Deny"}}`, false},
		"one action more":     {`{"Statement":{"Action":"a:b"}}`, `{"Statement":{"Action":["a:b","a:c"]}}`, false},
		"no document":         {`not a document`, `{"Statement":[]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			inv := inventory.New(inventory.Options{})
			take(t, inv, "a.tfstate", `{"version":4,"terraform_version":"1.11.4","serial":1,"lineage":"l","resources":[
			 {"mode":"managed","type":"aws_s3_bucket_policy","name":"p","provider":"p","instances":[{"attributes":{"id":"b","bucket":"b","policy":`+strconv.Quote(c.state)+`}}]}]}`, written)
			r, err := trailmap.New(inv, nil)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := trail.Decode(fmt.Appendf(nil, `{"eventSource":"s3.amazonaws.com","eventName":"PutBucketPolicy","eventTime":"2026-11-20T10:05:00Z","requestParameters":{"bucketName":"b","bucketPolicy":%s}}`, c.request))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(spell(r.Resolve(rec)), "unchanged"); got != c.same {
				t.Errorf("the same: got %v, want %v: %s", got, c.same, spell(r.Resolve(rec)))
			}
		})
	}
}
