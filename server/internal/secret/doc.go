// Package secret holds values that must never be printed.
//
// It owns the types that carry passwords, secret keys, session tokens and
// access tokens through the broker. Formatting, JSON, text and slog all give
// REDACTED, so that a value which strays into a log line or an error stays
// unreadable. Only Reveal gives the value back, and a search for Reveal finds
// every place where one leaves the type.
package secret
