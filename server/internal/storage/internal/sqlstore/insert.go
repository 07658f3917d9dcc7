package sqlstore

import (
	"math/bits"
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

// newInserter makes the statements, which take up to maxRows rows each.
func newInserter(table string, columns []string, maxRows int) inserter {
	in := inserter{columns: len(columns)}
	head := "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES "
	for rows := 1; rows <= maxRows; rows *= 2 {
		in.queries = append(in.queries, head+placeholders(rows, len(columns)))
	}
	return in
}

// run stores the rows. Each is asked for once, in order.
func (in inserter) run(t *tx, rows int, row func(i int) ([]any, error)) error {
	for at := 0; at < rows; {
		power := min(bits.Len(uint(rows-at)), len(in.queries)) - 1
		args := make([]any, 0, in.columns<<power)
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
