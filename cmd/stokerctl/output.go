package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// output writes results, as tables or as JSON.
type output struct {
	to   io.Writer
	json bool
}

// column is one thing that is shown of a message.
type column[M any] struct {
	title string
	value func(M) string
	// detail columns are left out of lists.
	detail bool
}

// showList prints a table with a line for each message, or a JSON array.
func showList[M proto.Message](o output, columns []column[M], messages []M) error {
	if o.json {
		texts := make([]json.RawMessage, len(messages))
		for i, m := range messages {
			text, err := encode(m)
			if err != nil {
				return err
			}
			texts[i] = text
		}
		return o.printJSON(texts)
	}
	return o.table(columnTitles(columns), func(row func(cells ...string)) {
		for _, m := range messages {
			var cells []string
			for _, c := range columns {
				if !c.detail {
					cells = append(cells, c.value(m))
				}
			}
			row(cells...)
		}
	})
}

func columnTitles[M any](columns []column[M]) (titles []string) {
	for _, c := range columns {
		if !c.detail {
			titles = append(titles, c.title)
		}
	}
	return titles
}

// show prints all that is known of one message, a line for each column that is
// not empty, or a JSON object.
func show[M proto.Message](o output, columns []column[M], m M) error {
	if o.json {
		return o.object(m)
	}
	w := tabwriter.NewWriter(o.to, 0, 0, 2, ' ', 0)
	for _, c := range columns {
		if value := c.value(m); value != "" {
			_, _ = fmt.Fprintf(w, "%s:\t%s\n", strings.ToLower(c.title), clean(value))
		}
	}
	return w.Flush()
}

// done says what was done, in a line or as the JSON of the answer.
func (o output) done(answer proto.Message, format string, args ...any) error {
	if o.json {
		return o.object(answer)
	}
	_, err := fmt.Fprintf(o.to, format+"\n", args...)
	return err
}

// object prints a message as a JSON object.
func (o output) object(m proto.Message) error {
	text, err := encode(m)
	if err != nil {
		return err
	}
	return o.printJSON(text)
}

// line prints a message as JSON in a single line.
func (o output) line(m proto.Message) error {
	text, err := encode(m)
	if err != nil {
		return err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return err
	}
	_, err = fmt.Fprintln(o.to, compact.String())
	return err
}

func (o output) printJSON(v any) error {
	e := json.NewEncoder(o.to)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// encode gives a message as JSON with every field, so that programs need not
// know what is left out.
func encode(m proto.Message) (json.RawMessage, error) {
	return protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
}

// table prints lines under titles.
func (o output) table(titles []string, rows func(row func(cells ...string))) error {
	w := tabwriter.NewWriter(o.to, 0, 0, 3, ' ', 0)
	row := func(cells ...string) {
		for i, cell := range cells {
			cells[i] = clean(cell)
		}
		// A trailing cell has no tab, and so no trailing spaces.
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	row(titles...)
	rows(row)
	return w.Flush()
}

// clean makes text from elsewhere safe to print: agents choose some of it, and
// a terminal obeys control characters.
func clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// at shows a moment in local time; "" where there is none.
func at(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05")
}

// left shows how long until a moment.
func left(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	d := t.AsTime().Sub(now).Round(time.Second)
	if d < 0 {
		return "ended"
	}
	return span(d)
}

// span shows a duration, a long one in days.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	}
	return d.Round(time.Second).String()
}

// stateOf shows whether something is disabled.
func stateOf[M interface{ GetDisabled() bool }](m M) string {
	if m.GetDisabled() {
		return "disabled"
	}
	return "active"
}

// resource is what all five kinds have.
type resource interface {
	proto.Message
	GetId() string
	GetEtag() string
	GetCreateTime() *timestamppb.Timestamp
	GetUpdateTime() *timestamppb.Timestamp
}

// common are the columns at the end of every resource.
func common[M resource]() []column[M] {
	return []column[M]{
		{title: "CREATED", value: func(m M) string { return at(m.GetCreateTime()) }},
		{title: "UPDATED", value: func(m M) string { return at(m.GetUpdateTime()) }, detail: true},
		{title: "ID", value: M.GetId, detail: true},
		{title: "ETAG", value: M.GetEtag, detail: true},
	}
}

// all reads a list to its end.
func all[M any](page func(token string) (messages []M, next string, err error)) ([]M, error) {
	var found []M
	for token := ""; ; {
		messages, next, err := page(token)
		if err != nil {
			return nil, err
		}
		found = append(found, messages...)
		if next == "" {
			return found, nil
		}
		token = next
	}
}
