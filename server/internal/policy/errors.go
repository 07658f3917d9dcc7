package policy

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// ScopeError says that a scope cannot become a policy, which field is to blame
// and what to do. It holds nothing secret and may reach operators.
type ScopeError struct {
	// Field is the field of Scope: partition, bucket, prefix, access, actions,
	// kms_key_arn or region.
	Field string
	// Value is what was refused, quoted in ASCII and cut to a readable length.
	Value string
	// Problem continues a sentence that begins with the field and the value.
	Problem string
}

// Error is one line in ASCII, whatever the value was.
func (e *ScopeError) Error() string {
	return e.Field + " " + e.Value + " " + e.Problem
}

// LengthError says that a policy came out longer than STS takes.
type LengthError struct {
	// Length and Max count characters, as STS does.
	Length, Max int
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("the session policy has %d characters, over the %d that STS takes; choose a shorter prefix, or one without double quotes",
		e.Length, e.Max)
}

// maxQuoted bounds how many bytes of a refused value an error repeats: the
// value may be a megabyte from outside.
const maxQuoted = 96

// refuse makes a ScopeError about value.
func refuse(field, value, format string, args ...any) error {
	return &ScopeError{Field: field, Value: quote(value), Problem: fmt.Sprintf(format, args...)}
}

// quote cuts between characters, so that what is shown was there.
func quote(value string) string {
	if len(value) <= maxQuoted {
		return strconv.QuoteToASCII(value)
	}
	cut := maxQuoted
	for cut > maxQuoted-utf8.UTFMax && !utf8.RuneStart(value[cut]) {
		cut--
	}
	return strconv.QuoteToASCII(value[:cut]) + "..."
}
