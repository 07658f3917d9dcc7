package adminapi

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/audit"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/reason"
	"github.com/stokerd/stoker/server/internal/storage"
)

type auditing struct {
	stokerv1.UnsafeAuditServiceServer
	*API
}

// ListRecords implements stokerv1.AuditServiceServer.
func (s auditing) ListRecords(ctx context.Context, r *stokerv1.ListRecordsRequest) (*stokerv1.ListRecordsResponse, error) {
	filter, err := readFilter(r)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	selection := selectionOf(filter)
	place, err := s.pages.place(selection, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	cursor, err := readCursor(place)
	if err != nil {
		return nil, err
	}
	found, err := s.Store.ListAudit(ctx, filter, cursor, size+1)
	if err != nil {
		return nil, err
	}
	answer := &stokerv1.ListRecordsResponse{End: len(found) <= size}
	if !answer.End {
		found = found[:size]
	}
	if len(found) > 0 {
		last := found[len(found)-1]
		cursor = &storage.AuditCursor{Time: last.Time, Writer: last.Writer, Sequence: last.Sequence}
	}
	answer.NextPageToken = s.pages.token(selection, writeCursor(cursor))
	for _, record := range found {
		answer.Records = append(answer.Records, recordMessage(record))
	}
	return answer, nil
}

func readFilter(r *stokerv1.ListRecordsRequest) (storage.AuditFilter, error) {
	filter := storage.AuditFilter{
		Events: r.GetEvents(), Tenant: r.GetTenant(), Login: canonicalLogin(r.GetLogin()), Agent: r.GetAgent(), Grant: r.GetGrant(),
	}
	var err error
	if filter.After, err = readTime("after_time", r.GetAfterTime()); err != nil {
		return filter, err
	}
	if filter.Before, err = readTime("before_time", r.GetBeforeTime()); err != nil {
		return filter, err
	}
	if len(filter.Events) > maxEvents {
		return filter, invalid("events", "has %d names; at most %d", len(filter.Events), maxEvents)
	}
	texts := map[string]string{"tenant": filter.Tenant, "login": filter.Login, "agent": filter.Agent, "grant": filter.Grant}
	for _, event := range filter.Events {
		if event == "" {
			return filter, invalid("events", "has an empty name; leave it out")
		}
		if err := checkText("events", event, maxFilter); err != nil {
			return filter, err
		}
	}
	for _, field := range []string{"tenant", "login", "agent", "grant"} {
		if err := checkText(field, texts[field], maxFilter); err != nil {
			return filter, err
		}
	}
	return filter, nil
}

// selectionOf binds a page token to everything that selects records.
func selectionOf(f storage.AuditFilter) list {
	moment := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return strconv.FormatInt(t.UnixMicro(), 10)
	}
	return append(list{"audit", moment(f.After), moment(f.Before), f.Tenant, f.Login, f.Agent, f.Grant}, f.Events...)
}

// writeCursor and readCursor keep a place in the trail in a page token; "" is
// the start.
func writeCursor(c *storage.AuditCursor) string {
	if c == nil {
		return "start"
	}
	return strings.Join([]string{strconv.FormatInt(c.Time.UnixMicro(), 10), strconv.FormatInt(c.Sequence, 10), c.Writer}, " ")
}

func readCursor(place string) (*storage.AuditCursor, error) {
	if place == "" || place == "start" {
		return nil, nil
	}
	parts := strings.SplitN(place, " ", 3)
	if len(parts) != 3 {
		return nil, errors.New("a page token of the audit trail holds no cursor")
	}
	micros, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return nil, err
	}
	sequence, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return nil, err
	}
	return &storage.AuditCursor{Time: time.UnixMicro(micros).UTC(), Sequence: sequence, Writer: parts[2]}, nil
}

// WhoIs implements stokerv1.AuditServiceServer.
func (s auditing) WhoIs(ctx context.Context, r *stokerv1.WhoIsRequest) (*stokerv1.WhoIsResponse, error) {
	filter := storage.AuditFilter{Events: []string{storage.EventCredentialIssued, storage.EventCredentialRenewed}}
	var field, value string
	switch by := r.GetCredential().(type) {
	case *stokerv1.WhoIsRequest_AccessKeyId:
		field, value, filter.AccessKeyID = "access_key_id", by.AccessKeyId, by.AccessKeyId
	case *stokerv1.WhoIsRequest_SessionName:
		field, value, filter.SessionName = "session_name", by.SessionName, by.SessionName
	case *stokerv1.WhoIsRequest_CredentialId:
		field, value, filter.CredentialID = "credential_id", by.CredentialId, by.CredentialId
	default:
		return nil, invalid("credential", "is missing; set one of access_key_id, session_name, credential_id")
	}
	if value == "" {
		return nil, invalid(field, "is empty")
	}
	if err := checkText(field, value, maxFilter); err != nil {
		return nil, err
	}
	record, err := s.latest(ctx, filter)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, reason.New(reason.NotFound, "no credential with %s %q was issued, as far back as the audit trail goes", field, value)
	}
	if err != nil {
		return nil, err
	}
	return &stokerv1.WhoIsResponse{Record: recordMessage(record)}, nil
}

// latest gives the last record of a selection. A session's name is the same
// for every renewal, of which there may be thousands, and the trail is read
// forward: so it is searched in stretches of time that reach back twice as far
// each, until one has a record.
func (s auditing) latest(ctx context.Context, filter storage.AuditFilter) (storage.AuditRecord, error) {
	end := s.Now().Add(time.Hour) // some replica's clock may be ahead
	for stretch := 24 * time.Hour; ; stretch *= 2 {
		filter.Before, filter.After = end, end.Add(-stretch)
		last := stretch > 20*365*24*time.Hour
		if last {
			filter.After = time.Time{}
		}
		record, err := s.last(ctx, filter)
		if last || !errors.Is(err, storage.ErrNotFound) {
			return record, err
		}
		end = filter.After
	}
}

// last reads a selection to its end.
func (s auditing) last(ctx context.Context, filter storage.AuditFilter) (record storage.AuditRecord, err error) {
	err = storage.ErrNotFound
	var cursor *storage.AuditCursor
	for {
		found, problem := s.Store.ListAudit(ctx, filter, cursor, largestPage)
		if problem != nil {
			return record, problem
		}
		if len(found) > 0 {
			record, err = found[len(found)-1], nil
			cursor = &storage.AuditCursor{Time: record.Time, Writer: record.Writer, Sequence: record.Sequence}
		}
		if len(found) < largestPage {
			return record, err
		}
	}
}

// Verify implements stokerv1.AuditServiceServer.
func (s auditing) Verify(ctx context.Context, _ *stokerv1.VerifyRequest) (*stokerv1.VerifyResponse, error) {
	report, err := s.API.Verify(ctx)
	if err != nil {
		return nil, err
	}
	answer := &stokerv1.VerifyResponse{Intact: report.Intact()}
	for _, c := range report.Chains {
		answer.Chains = append(answer.Chains, chainMessage(c))
	}
	return answer, nil
}

// chainMessage gives the first fault its place; what is wrong beside it stands
// in the text.
func chainMessage(c audit.Chain) *stokerv1.ChainReport {
	m := &stokerv1.ChainReport{Writer: c.Writer, Records: c.Records, FirstSequence: c.First, LastSequence: c.Last}
	var texts []string
	for _, f := range c.Faults {
		texts = append(texts, string(f.Kind)+": "+f.Text)
	}
	if len(texts) > 0 {
		m.Fault, m.FaultSequence = strings.Join(texts, "; "), c.Faults[0].Sequence
	}
	return m
}

func recordMessage(r storage.AuditRecord) *stokerv1.AuditRecord {
	return &stokerv1.AuditRecord{
		Writer: r.Writer, Sequence: r.Sequence, Time: message.Time(r.Time), Event: r.Event, Reason: r.Reason, Actor: r.Actor,
		CertificateSerial: r.CertificateSerial, CertificateThumbprint: r.CertificateThumbprint, Peer: r.Peer, RequestId: r.RequestID,
		TenantId: r.TenantID, Tenant: r.Tenant, UserId: r.UserID, Login: r.Login, AgentId: r.AgentID, Agent: r.Agent,
		GrantId: r.GrantID, Grant: r.Grant, SessionId: r.SessionID, Account: r.Account, CredentialId: r.CredentialID,
		AccessKeyId: r.AccessKeyID, SessionName: r.SessionName, PolicyHash: r.PolicyHash, ExpireTime: message.Time(r.Expires),
		Detail: r.Detail, PreviousHash: r.PrevHash, Hash: r.Hash,
	}
}
