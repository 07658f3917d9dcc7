package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stokerd/stoker/server/internal/storage/internal/sqlstore"
)

func TestFaults(t *testing.T) {
	coded := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	for name, c := range map[string]struct {
		err   error
		fault sqlstore.Fault
		doubt bool // where it is what a commit failed with
	}{
		"unique":            {coded("23505"), sqlstore.FaultTaken, false},
		"foreign key":       {coded("23503"), sqlstore.FaultReference, false},
		"check":             {coded("23514"), sqlstore.FaultUnavailable, false},
		"serialization":     {coded("40001"), sqlstore.FaultRepeat, false},
		"deadlock":          {coded("40P01"), sqlstore.FaultRepeat, false},
		"disk full":         {coded("53100"), sqlstore.FaultUnavailable, false},
		"read only":         {coded("25006"), sqlstore.FaultUnavailable, false},
		"idle in a tx":      {coded("25P03"), sqlstore.FaultUnavailable, false},
		"shut down":         {coded("57P01"), sqlstore.FaultRepeat, true},
		"crashed":           {coded("57P02"), sqlstore.FaultRepeat, true},
		"starting":          {coded("57P03"), sqlstore.FaultUnavailable, true},
		"i/o":               {coded("58030"), sqlstore.FaultUnavailable, true},
		"strange code":      {coded("?"), sqlstore.FaultUnavailable, true},
		"no connection":     {&pgconn.ConnectError{}, sqlstore.FaultUnavailable, true},
		"bad connection":    {driver.ErrBadConn, sqlstore.FaultRepeat, true},
		"end of file":       {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), sqlstore.FaultRepeat, true},
		"reset":             {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, sqlstore.FaultRepeat, true},
		"network timeout":   {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, sqlstore.FaultUnavailable, true},
		"cancelled":         {context.Canceled, sqlstore.FaultUnavailable, true},
		"rolled back":       {pgx.ErrTxCommitRollback, sqlstore.FaultUnavailable, false},
		"something unknown": {errors.New("unknown"), sqlstore.FaultUnavailable, true},
	} {
		if got := fault(c.err); got != c.fault {
			t.Errorf("%s: fault %d, want %d", name, got, c.fault)
		}
		if got := inDoubt(c.err); got != c.doubt {
			t.Errorf("%s: in doubt: %v, want %v", name, got, c.doubt)
		}
	}
}

func TestDescribe(t *testing.T) {
	err := errors.New("failed to connect:\n\tpassword=s3cret\n\tgone")
	if got := describe(err, "s3cret"); got != "failed to connect: password=REDACTED gone" {
		t.Error(got)
	}
	if got := describe(err, ""); strings.Contains(got, "\n") {
		t.Error(got)
	}
}

func TestLocal(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "localhost": true, "/var/run/postgresql": true, "@abstract": true,
		"db.example.com": false, "192.0.2.1": false, "2001:db8::1": false, "": false,
	} {
		if got := local(host); got != want {
			t.Errorf("%q is local: %v", host, got)
		}
	}
}
