package storagetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stokerd/stoker/server/internal/storage"
)

var auditCases = map[string]func(*testing.T, Opener){
	"RoundTrip":         one(testAuditRoundTrip),
	"BatchSizes":        one(testAuditBatchSizes),
	"BuildFails":        one(testBuildFails),
	"BuildPanics":       one(testBuildPanics),
	"EmptyBatch":        one(testEmptyBatch),
	"NoChain":           one(testBatchThatIsNoChain),
	"Conflict":          one(testBatchThatDoesNotFollow),
	"SameWriterRace":    one(testSameWriterRace),
	"WritersAtOnce":     one(testWritersAtOnce),
	"Unstorable":        one(testUnstorableRecord),
	"ListOrderAndPages": one(testListAudit),
	"Filters":           one(testAuditFilters),
	"Chain":             one(testAuditChain),
	"FindIssue":         one(testFindIssue),
	"Trim":              one(testTrimAudit),
}

// chain makes a piece of a writer's chain of n records from the sequence on.
func chain(writer string, from int64, n int) storage.AuditBatch {
	var b storage.AuditBatch
	for i := range int64(n) {
		b.Records = append(b.Records, storage.AuditRecord{
			Writer: writer, Sequence: from + i, Time: moment(int(from + i)), Event: "login.succeeded",
			PrevHash: fmt.Sprint("h", from+i-1), Hash: fmt.Sprint("h", from+i),
		})
	}
	b.Head = storage.AuditHead{Writer: writer, Sequence: from + int64(n) - 1, First: 1, Seal: []byte{1, 0, 0xfe}}
	b.Head.Hash = fmt.Sprint("h", b.Head.Sequence)
	return b
}

func appendBatch(t *testing.T, s storage.Store, b storage.AuditBatch) {
	t.Helper()
	noError(t, tryAppend(t.Context(), s, b))
}

func tryAppend(ctx context.Context, s storage.Store, b storage.AuditBatch) error {
	return s.AppendAudit(ctx, func(int64) (storage.AuditBatch, error) { return b, nil })
}

func listAll(t *testing.T, s storage.Store) []storage.AuditRecord {
	t.Helper()
	return must[[]storage.AuditRecord](t)(s.ListAudit(t.Context(), storage.AuditFilter{}, nil, 10000))
}

// unchanged checks that the trail is as it was before f.
func unchanged(t *testing.T, s storage.Store, f func()) {
	t.Helper()
	ctx := t.Context()
	records, heads := listAll(t, s), must[[]storage.AuditHead](t)(s.AuditHeads(ctx))
	f()
	same(t, "records", listAll(t, s), records)
	same(t, "heads", must[[]storage.AuditHead](t)(s.AuditHeads(ctx)), heads)
}

func testAuditRoundTrip(t *testing.T, s storage.Store) {
	full := storage.AuditRecord{
		Writer: newID(t), Sequence: 1, Time: moment(0), Event: storage.EventCredentialIssued, Reason: "REASON",
		Actor: "spiffe://example.com/tenant/t/agent/a", CertificateSerial: "0aff", CertificateThumbprint: "ee",
		Peer: "[::1]:4711", RequestID: "r", TenantID: "ti", Tenant: "t", UserID: "ui", Login: "u", AgentID: "ai",
		Agent: "a", GrantID: "gi", Grant: "g", SessionID: "si", Account: "main", CredentialID: "ci",
		AccessKeyID: "ASIA", SessionName: "sn", PolicyHash: "ph", Expires: moment(60),
		Detail: map[string]string{"purpose": "a \"test\" <&>\n", "": "no name", "empty": ""},
		Hash:   "h1",
	}
	empty := storage.AuditRecord{Writer: full.Writer, Sequence: 2, Time: moment(1), Event: "e", Detail: map[string]string{}}
	given := storage.AuditBatch{
		Records: []storage.AuditRecord{full, empty},
		Head: storage.AuditHead{Writer: full.Writer, Sequence: 2, Hash: "h2", Seal: []byte{0, 0xff},
			First: 1, FirstPrevHash: "h0"},
	}
	told(t, s, func() { appendBatch(t, s, given) }) // the trail is no part of the feed
	if !given.Records[0].Time.Equal(full.Time) || given.Records[0].Time.Location() != full.Time.Location() {
		t.Error("the caller's record was changed")
	}
	full.Time, full.Expires, empty.Time, empty.Detail = kept(full.Time), kept(full.Expires), kept(empty.Time), nil
	want := []storage.AuditRecord{full, empty}
	same(t, "listed", listAll(t, s), want)
	same(t, "chain", must[[]storage.AuditRecord](t)(s.AuditChain(t.Context(), full.Writer, 1, 10)), want)
	same(t, "issue", must[storage.AuditRecord](t)(s.FindIssue(t.Context(), "ci")), full)
	same(t, "heads", must[[]storage.AuditHead](t)(s.AuditHeads(t.Context())), []storage.AuditHead{given.Head})
}

func testAuditBatchSizes(t *testing.T, s storage.Store) {
	next := int64(1)
	for _, n := range []int{1, 2, 3, 7, 63, 64, 65, 130} {
		appendBatch(t, s, chain("w", next, n))
		next += int64(n)
	}
	for i, r := range listAll(t, s) {
		if r.Sequence != int64(i+1) || r.Hash != fmt.Sprint("h", i+1) {
			t.Fatalf("record %d is %+v", i, r)
		}
	}
	if n := len(listAll(t, s)); n != int(next-1) {
		t.Errorf("%d records, want %d", n, next-1)
	}
}

func testBuildFails(t *testing.T, s storage.Store) {
	appendBatch(t, s, chain("w", 1, 1))
	unchanged(t, s, func() {
		for _, want := range []error{errors.New("no"), storage.ErrNotFound, context.Canceled, fmt.Errorf("wrapped: %w", storage.ErrConflict)} {
			got := s.AppendAudit(t.Context(), func(int64) (storage.AuditBatch, error) { return chain("w", 2, 1), want })
			if got != want { //nolint:errorlint // it is returned as it is
				t.Errorf("error is %#v, want build's own %#v", got, want)
			}
		}
	})
	appendBatch(t, s, chain("w", 2, 1))
}

func testBuildPanics(t *testing.T, s storage.Store) {
	appendBatch(t, s, chain("w", 1, 1))
	unchanged(t, s, func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.AppendAudit(t.Context(), func(int64) (storage.AuditBatch, error) { panic("build") })
	})
	appendBatch(t, s, chain("w", 2, 1)) // nothing is left locked
}

func testEmptyBatch(t *testing.T, s storage.Store) {
	appendBatch(t, s, chain("w", 1, 1))
	unchanged(t, s, func() {
		noError(t, tryAppend(t.Context(), s, storage.AuditBatch{}))
		noError(t, tryAppend(t.Context(), s, storage.AuditBatch{Head: storage.AuditHead{Writer: "w", Sequence: 7}}))
	})
}

func testBatchThatIsNoChain(t *testing.T, s storage.Store) {
	appendBatch(t, s, chain("w", 1, 2))
	for name, spoil := range map[string]func(*storage.AuditBatch){
		"gap":           func(b *storage.AuditBatch) { b.Records[1].Sequence++ },
		"twice":         func(b *storage.AuditBatch) { b.Records[1].Sequence-- },
		"head too far":  func(b *storage.AuditBatch) { b.Head.Sequence++ },
		"head behind":   func(b *storage.AuditBatch) { b.Head.Sequence-- },
		"other writer":  func(b *storage.AuditBatch) { b.Records[2].Writer = "x" },
		"head of other": func(b *storage.AuditBatch) { b.Head.Writer = "x" },
		"no writer":     func(b *storage.AuditBatch) { b.Head.Writer, b.Records = "", b.Records[:1]; b.Records[0].Writer = "" },
		"no time":       func(b *storage.AuditBatch) { b.Records[1].Time = time.Time{} },
		"no event":      func(b *storage.AuditBatch) { b.Records[1].Event = "" },
	} {
		t.Run(name, func(t *testing.T) {
			b := chain("w", 3, 3)
			spoil(&b)
			unchanged(t, s, func() { wantError(t, tryAppend(t.Context(), s, b), storage.ErrInvalid) })
		})
	}
}

func testBatchThatDoesNotFollow(t *testing.T, s storage.Store) {
	appendBatch(t, s, chain("w", 1, 3))
	unchanged(t, s, func() {
		for _, from := range []int64{1, 2, 3, 5} {
			wantError(t, tryAppend(t.Context(), s, chain("w", from, 3)), storage.ErrConflict)
		}
		trimmed := chain("w", 4, 1)
		trimmed.Head.First = 2
		wantError(t, tryAppend(t.Context(), s, trimmed), storage.ErrConflict)
	})
	appendBatch(t, s, chain("w", 4, 3))
}

func testSameWriterRace(t *testing.T, s storage.Store) {
	for from := int64(1); from <= 4; from++ {
		errs := race(6, func(int) error { return tryAppend(t.Context(), s, chain("w", from, 1)) })
		oneWinner(t, errs, storage.ErrConflict)
	}
}

func testWritersAtOnce(t *testing.T, s storage.Store) {
	const writers, batches, size = 6, 8, 5
	for _, err := range race(writers, func(w int) error {
		for i := range int64(batches) {
			if err := tryAppend(t.Context(), s, chain(fmt.Sprint("w", w), i*size+1, size)); err != nil {
				return err
			}
		}
		return nil
	}) {
		noError(t, err)
	}
	for w := range writers {
		records := must[[]storage.AuditRecord](t)(s.AuditChain(t.Context(), fmt.Sprint("w", w), 1, 1000))
		if len(records) != batches*size {
			t.Errorf("%d records of writer %d", len(records), w)
		}
	}
}

func testUnstorableRecord(t *testing.T, s storage.Store) {
	appendBatch(t, s, chain("w", 1, 1))
	for name, text := range unstorable {
		t.Run(name, func(t *testing.T) {
			unchanged(t, s, func() {
				b := chain("w", 2, 70)
				b.Records[69].Login = text
				wantError(t, tryAppend(t.Context(), s, b), storage.ErrInvalid)
				b = chain("w", 2, 70)
				b.Records[69].Detail = map[string]string{text: "v"}
				wantError(t, tryAppend(t.Context(), s, b), storage.ErrInvalid)
			})
		})
	}
}

// spread stores records of three writers, many of them at the same times, and
// returns them in the order of the cursor.
func spread(t *testing.T, s storage.Store) []storage.AuditRecord {
	t.Helper()
	var all []storage.AuditRecord
	for w, writer := range []string{"b", "a", "C"} {
		b := chain(writer, 1, 6)
		for i := range b.Records {
			b.Records[i].Time = kept(moment((i + w) / 3))
			b.Records[i].Detail = map[string]string{"place": fmt.Sprint(writer, i)}
		}
		appendBatch(t, s, b)
		all = append(all, b.Records...)
	}
	slices.SortFunc(all, func(x, y storage.AuditRecord) int {
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.Writer, y.Writer), cmp.Compare(x.Sequence, y.Sequence))
	})
	return all
}

func testListAudit(t *testing.T, s storage.Store) {
	ctx := t.Context()
	all := spread(t, s)
	same(t, "all", listAll(t, s), all)
	for limit := 1; limit <= len(all)+1; limit++ {
		var got []storage.AuditRecord
		var after *storage.AuditCursor
		for {
			page := must[[]storage.AuditRecord](t)(s.ListAudit(ctx, storage.AuditFilter{}, after, limit))
			got = append(got, page...)
			if len(page) < limit {
				break
			}
			last := page[limit-1]
			after = &storage.AuditCursor{Time: last.Time, Writer: last.Writer, Sequence: last.Sequence}
		}
		same(t, fmt.Sprintf("pages of %d", limit), got, all)
	}
	for _, limit := range []int{0, -1} {
		_, err := s.ListAudit(ctx, storage.AuditFilter{}, nil, limit)
		wantError(t, err, storage.ErrInvalid)
		_, err = s.AuditChain(ctx, "a", 1, limit)
		wantError(t, err, storage.ErrInvalid)
	}
}

func testAuditFilters(t *testing.T, s storage.Store) {
	b := chain("w", 1, 5)
	r := b.Records
	r[0].Tenant, r[0].Login, r[0].Agent, r[0].Grant = "t", "u", "a", "g"
	r[1].Tenant, r[1].CredentialID, r[1].AccessKeyID, r[1].SessionName = "t", "c", "k", "s"
	r[1].Event = storage.EventCredentialIssued
	r[2].CredentialID, r[2].Event = "c", "credential.refused"
	r[3].Tenant, r[3].Login = "T", "U"
	appendBatch(t, s, b)
	appendBatch(t, s, chain("x", 6, 1))

	for name, c := range map[string]struct {
		filter storage.AuditFilter
		want   []int64
	}{
		"all":           {storage.AuditFilter{}, []int64{1, 2, 3, 4, 5, 6}},
		"after":         {storage.AuditFilter{After: moment(3)}, []int64{3, 4, 5, 6}},
		"before":        {storage.AuditFilter{Before: moment(3)}, []int64{1, 2}},
		"between":       {storage.AuditFilter{After: moment(2), Before: moment(4)}, []int64{2, 3}},
		"never":         {storage.AuditFilter{After: moment(4), Before: moment(4)}, nil},
		"event":         {storage.AuditFilter{Events: []string{"credential.refused"}}, []int64{3}},
		"events":        {storage.AuditFilter{Events: []string{"credential.refused", storage.EventCredentialIssued, "x"}}, []int64{2, 3}},
		"tenant":        {storage.AuditFilter{Tenant: "t"}, []int64{1, 2}},
		"login":         {storage.AuditFilter{Login: "u"}, []int64{1}},
		"agent":         {storage.AuditFilter{Agent: "a"}, []int64{1}},
		"grant":         {storage.AuditFilter{Grant: "g"}, []int64{1}},
		"credential":    {storage.AuditFilter{CredentialID: "c"}, []int64{2, 3}},
		"access key":    {storage.AuditFilter{AccessKeyID: "k"}, []int64{2}},
		"session name":  {storage.AuditFilter{SessionName: "s"}, []int64{2}},
		"writer":        {storage.AuditFilter{Writer: "x"}, []int64{6}},
		"all of them":   {storage.AuditFilter{Tenant: "t", CredentialID: "c", Events: []string{storage.EventCredentialIssued}, Writer: "w", After: moment(1)}, []int64{2}},
		"contradiction": {storage.AuditFilter{Tenant: "t", Login: "U"}, nil},
		"no pattern":    {storage.AuditFilter{Tenant: "%"}, nil},
	} {
		var got []int64
		for _, r := range must[[]storage.AuditRecord](t)(s.ListAudit(t.Context(), c.filter, nil, 100)) {
			got = append(got, r.Sequence)
		}
		same(t, name, got, c.want)
	}
}

func testAuditChain(t *testing.T, s storage.Store) {
	appendBatch(t, s, chain("w", 1, 9))
	appendBatch(t, s, chain("v", 1, 2))
	all := must[[]storage.AuditRecord](t)(s.AuditChain(t.Context(), "w", 0, 100))
	if len(all) != 9 {
		t.Fatalf("%d records", len(all))
	}
	for from := range 11 {
		for limit := 1; limit < 11; limit++ {
			begin := min(max(from-1, 0), 9)
			got := must[[]storage.AuditRecord](t)(s.AuditChain(t.Context(), "w", int64(from), limit))
			same(t, fmt.Sprintf("%d from %d", limit, from), got, append([]storage.AuditRecord(nil), all[begin:min(begin+limit, 9)]...))
		}
	}
	if none := must[[]storage.AuditRecord](t)(s.AuditChain(t.Context(), "unknown", 1, 10)); len(none) != 0 {
		t.Errorf("records of an unknown writer: %v", none)
	}
	var writers []string
	for _, h := range must[[]storage.AuditHead](t)(s.AuditHeads(t.Context())) {
		writers = append(writers, fmt.Sprint(h.Writer, h.Sequence))
	}
	slices.Sort(writers)
	same(t, "heads", writers, []string{"v2", "w9"})
}

func testFindIssue(t *testing.T, s storage.Store) {
	b := chain("w", 1, 5)
	for i, event := range []string{"credential.refused", storage.EventCredentialIssued, "credential.revoked",
		storage.EventCredentialRenewed, "credential.delivered"} {
		b.Records[i].Event, b.Records[i].CredentialID = event, fmt.Sprint("c", i)
	}
	b.Records[4].CredentialID = "c1" // a later record of an issued credential
	appendBatch(t, s, b)
	for id, want := range map[string]int64{"c1": 2, "c3": 4} {
		if r := must[storage.AuditRecord](t)(s.FindIssue(t.Context(), id)); r.Sequence != want {
			t.Errorf("issue of %s is record %d, want %d", id, r.Sequence, want)
		}
	}
	for _, id := range []string{"c0", "c2", "unknown", ""} {
		_, err := s.FindIssue(t.Context(), id)
		wantError(t, err, storage.ErrNotFound)
	}
}

func testTrimAudit(t *testing.T, s storage.Store) {
	ctx := t.Context()
	appendBatch(t, s, chain("w", 1, 10))
	appendBatch(t, s, chain("v", 1, 3))
	head := chain("w", 10, 1).Head
	head.First, head.FirstPrevHash, head.Seal = 5, "h4", []byte("new")
	told(t, s, func() { noError(t, s.TrimAudit(ctx, head)) })
	left := must[[]storage.AuditRecord](t)(s.AuditChain(ctx, "w", 1, 100))
	if len(left) != 6 || left[0].Sequence != 5 {
		t.Errorf("%d records are left, from %d", len(left), left[0].Sequence)
	}
	if other := must[[]storage.AuditRecord](t)(s.AuditChain(ctx, "v", 1, 100)); len(other) != 3 {
		t.Errorf("%d records of the other writer are left", len(other))
	}
	heads := must[[]storage.AuditHead](t)(s.AuditHeads(ctx))
	slices.SortFunc(heads, func(x, y storage.AuditHead) int { return cmp.Compare(x.Writer, y.Writer) })
	same(t, "heads", heads, []storage.AuditHead{chain("v", 3, 1).Head, head})

	unchanged(t, s, func() {
		behind := head
		behind.Sequence = 9
		wantError(t, s.TrimAudit(ctx, behind), storage.ErrConflict)
		back := head
		back.First = 4
		wantError(t, s.TrimAudit(ctx, back), storage.ErrConflict)
		unknown := head
		unknown.Writer = "unknown"
		wantError(t, s.TrimAudit(ctx, unknown), storage.ErrNotFound)
		// A writer that does not know of the trim cannot go on with its old head.
		wantError(t, tryAppend(ctx, s, chain("w", 11, 1)), storage.ErrConflict)
	})
	next := chain("w", 11, 1)
	next.Head.First, next.Head.FirstPrevHash = 5, "h4"
	appendBatch(t, s, next)
	gone := next.Head
	gone.First, gone.FirstPrevHash = 12, "h11"
	noError(t, s.TrimAudit(ctx, gone))
	if left := must[[]storage.AuditRecord](t)(s.AuditChain(ctx, "w", 1, 100)); len(left) != 0 {
		t.Errorf("records are left: %v", left)
	}
}
