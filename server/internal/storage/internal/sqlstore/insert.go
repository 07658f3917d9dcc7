package sqlstore

import (
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// inserter stores many rows with few statements. The rows of a statement are a
// power of two, so that there are few different statements and they can be
// kept prepared.
type inserter struct {
	columns int
	queries []string // for 1, 2, 4 rows and so on
}

// newInserter makes the statements, which take as many rows each as the
// dialect says.
func newInserter(d Dialect, table string, columns []string) inserter {
	in := inserter{columns: len(columns)}
	head := "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES "
	for rows := 1; rows <= d.MaxRows; rows *= 2 {
		query := head + placeholders(rows, len(columns))
		if d.Unnumbered {
			query = numbered.ReplaceAllString(query, "?")
		}
		in.queries = append(in.queries, query)
	}
	return in
}

// numbered are the parameters that placeholders writes.
var numbered = regexp.MustCompile(`\$[0-9]+`)

// run stores the rows. Each is asked for once, in order.
func (in inserter) run(t *tx, rows int, row func(i int) ([]any, error)) error {
	var args []any
	for at := 0; at < rows; {
		power := min(bits.Len(uint(rows-at)), len(in.queries)) - 1
		args = slices.Grow(args[:0], in.columns<<power)
		for i := range 1 << power {
			values, err := row(at + i)
			if err != nil {
				return err
			}
			args = append(args, values...)
		}
		if _, err := t.exec(in.queries[power], args...); err != nil {
			return err
		}
		at += 1 << power
	}
	return nil
}

// placeholders gives ($1,$2),($3,$4) for two rows of two columns.
func placeholders(rows, columns int) string {
	var b strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%columns == 0:
			b.WriteString("),(")
		default:
			b.WriteByte(',')
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(i + 1))
	}
	b.WriteByte(')')
	return b.String()
}
