// Package docpage keeps pages of the documentation as the code is.
//
// It owns what is between two marks of a page, which a test makes from the
// code, and the tables of configuration keys, which are made from the comments
// of the source. It touches no other part of a page, and writes to one only
// where STOKER_UPDATE_DOCS is set. Only tests import it.
package docpage
