package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// Document is a session policy. Build makes it; the zero Document is none, and
// nothing takes it for one. It never changes and may be shared.
type Document struct {
	text        string
	statements  []Statement
	bucketARN   string
	keyARN      string
	viaServices []string
}

// Statement is one part of a policy. Every statement allows; none denies.
type Statement struct {
	// Purpose says for people what it allows, such as `list the keys that
	// begin with "acme/"`. It is not part of the policy's text.
	Purpose   string
	Actions   []string
	Resources []string
	// Condition is the zero Condition where there is none.
	Condition Condition
}

// The condition operators in use.
const (
	stringEquals = "StringEquals"
	stringLike   = "StringLike"
)

// Condition confines a statement to requests whose Key is one of Values.
type Condition struct {
	// Operator is StringEquals, or StringLike where "*" in a value stands for
	// any text.
	Operator string
	Key      string
	Values   []string
}

// zeroText is what the zero Document prints. It is not JSON and not empty, so
// an STS refuses it, whereas some would take an empty text for no policy.
const zeroText = "(no policy: make one with policy.Build)"

// String is the policy's JSON, minified, as it goes to STS.
func (d Document) String() string {
	if d.IsZero() {
		return zeroText
	}
	return d.text
}

// IsZero says that d did not come from Build and is no policy.
func (d Document) IsZero() bool { return d.text == "" }

// Hash is the SHA-256 of the text in lower-case hexadecimal; empty for the
// zero Document. Equal hashes mean equal policies.
func (d Document) Hash() string {
	if d.IsZero() {
		return ""
	}
	sum := sha256.Sum256([]byte(d.text))
	return hex.EncodeToString(sum[:])
}

// Length is the number of characters that STS counts against
// MaxDocumentLength.
func (d Document) Length() int { return utf8.RuneCountInString(d.text) }

// Statements gives a copy of the policy's parts, in the order of its text.
func (d Document) Statements() []Statement {
	out := make([]Statement, len(d.statements))
	for i, st := range d.statements {
		st.Actions = slices.Clone(st.Actions)
		st.Resources = slices.Clone(st.Resources)
		st.Condition.Values = slices.Clone(st.Condition.Values)
		out[i] = st
	}
	return out
}

// The JSON of a policy. Version is never left out: its absence means 2008.
type (
	documentJSON struct {
		Version   string
		Statement []statementJSON
	}
	statementJSON struct {
		Effect    string
		Action    any
		Resource  any
		Condition map[string]map[string]any `json:",omitempty"`
	}
)

// encode writes the statements as minified JSON. Characters from U+00A0 to
// U+00FF stand for themselves: STS takes them, and an escape costs five more.
func encode(statements []Statement) (string, error) {
	doc := documentJSON{Version: "2012-10-17"}
	for _, st := range statements {
		s := statementJSON{Effect: "Allow", Action: oneOrMany(st.Actions), Resource: oneOrMany(st.Resources)}
		if c := st.Condition; c.Operator != "" {
			s.Condition = map[string]map[string]any{c.Operator: {c.Key: oneOrMany(c.Values)}}
		}
		doc.Statement = append(doc.Statement, s)
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	// Without this, "<", ">" and "&" would take six characters each.
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(doc); err != nil {
		return "", err
	}
	return strings.TrimSuffix(text.String(), "\n"), nil
}

// oneOrMany leaves the brackets off a list of one, as policies may.
func oneOrMany(list []string) any {
	if len(list) == 1 {
		return list[0]
	}
	return list
}
