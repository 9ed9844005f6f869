package field_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecretsLeaveByNoField: what the state marks sensitive is masked in every field of a record that quotes it.
func TestSecretsLeaveByNoField(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prod.tfstate")
	marks := `"sensitive_attributes":[[{"type":"get_attr","value":"bucket"}],[{"type":"get_attr","value":"extra"}],[{"type":"get_attr","value":"pin"}]]`
	text := strings.Replace(stateText(3, true), `"sensitive_attributes":[]`, marks, 1)
	text = strings.Replace(text, `"bucket":"logs-1"`, `"bucket":"logs-1","extra":"pass\"word<1>","pin":84215566`, 1)
	writeState(t, path, strings.ReplaceAll(text, "logs-1", "topsecret-1"))
	e := engine(t, fmt.Sprintf(`{"states":[%q]}`, path))
	e.Load(t.Context())
	x := e.Extractor()
	record := strings.ReplaceAll(publicAccess, "logs-1", "topsecret-1")
	record = strings.Replace(record, `"bucketName"`, `"doc":"{\"p\":\"pass\\\"word<1>\"}","pin":84215566,"bucketName"`, 1)
	record = strings.Replace(record, `"eventID":"e1"`, `"eventID":"e1","errorCode":"Invalid","errorMessage":"bucket topsecret-1 is wrong",
	 "resources":[{"ARN":"arn:aws:s3:::topsecret-1"}],"serviceEventDetails":{"a":"topsecret-1"}`, 1)
	x.Load([]byte(record))
	told := all(x, map[string]string{"tf.old": "id"})
	if len(told) < 10 {
		t.Fatalf("only %d fields", len(told))
	}
	for name, value := range told {
		for _, secret := range []string{"topsecret", "word<1>", "84215566"} {
			if strings.Contains(fmt.Sprint(value), secret) {
				t.Errorf("%s: %v", name, value)
			}
		}
	}
	if strings.Contains(x.Summary(), "topsecret") {
		t.Errorf("summary: %s", x.Summary())
	}
}
