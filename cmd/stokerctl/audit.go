package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type auditCommands struct {
	List   auditList   `cmd:"" help:"List records, oldest first. With -o json each is a line."`
	Tail   auditTail   `cmd:"" help:"Print records as they are written, until interrupted. With -o json each is a line."`
	Export auditExport `cmd:"" help:"Print all records, oldest first, each as a line of JSON."`
	Whois  auditWhois  `cmd:"" help:"Say who a credential was issued to."`
	Verify auditVerify `cmd:"" help:"Check every chain of the trail. Exits with 1 if one is not whole."`
}

// selection chooses records.
type selection struct {
	Event  []string `placeholder:"EVENT" help:"Only this event, such as credential.issued; repeat it for more."`
	Tenant string   `help:"Only of this tenant."`
	Login  string   `help:"Only of users with this login."`
	Agent  string   `help:"Only of agents of this name."`
	Grant  string   `help:"Only of grants of this name."`
}

func (s selection) request() *stokerv1.ListRecordsRequest {
	return &stokerv1.ListRecordsRequest{
		Events: s.Event, Tenant: s.Tenant, Login: s.Login, Agent: s.Agent, Grant: s.Grant, PageSize: pageSize,
	}
}

// read gives the records of a request to each, page by page.
func (a *api) read(r *stokerv1.ListRecordsRequest, each func(*stokerv1.AuditRecord) error) error {
	for {
		page, err := a.audit.ListRecords(a.ctx, r)
		if err != nil {
			return err
		}
		for _, record := range page.GetRecords() {
			if err := each(record); err != nil {
				return err
			}
		}
		if page.GetEnd() {
			return nil
		}
		r.PageToken = page.GetNextPageToken()
	}
}

// printRecord prints one line.
func (a *api) printRecord(r *stokerv1.AuditRecord) error {
	if a.json {
		return a.line(r)
	}
	_, err := fmt.Fprintln(a.out, clean(recordLine(r)))
	return err
}

// recordLine is what people want to know of a record: when, what, who, on what.
func recordLine(r *stokerv1.AuditRecord) string {
	parts := []string{at(r.GetTime()), r.GetEvent()}
	add := func(name, value string) {
		if strings.ContainsAny(value, " \"=") {
			value = strconv.Quote(value)
		}
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	add("by", strings.TrimPrefix(r.GetActor(), "spiffe://"))
	add("reason", r.GetReason())
	add("tenant", r.GetTenant())
	add("login", r.GetLogin())
	add("agent", r.GetAgent())
	add("grant", r.GetGrant())
	add("credential", r.GetCredentialId())
	add("key", r.GetAccessKeyId())
	if r.GetExpireTime() != nil {
		parts = append(parts, "until="+r.GetExpireTime().AsTime().Local().Format(time.RFC3339))
	}
	for _, key := range slices.Sorted(maps.Keys(r.GetDetail())) {
		add(key, r.GetDetail()[key])
	}
	return strings.Join(parts, "  ")
}

type auditList struct {
	Since time.Duration `default:"24h" help:"How far back to begin."`
	All   bool          `help:"Begin with the first record."`
	selection
}

func (c *auditList) Run(a *api) error {
	r := c.request()
	if !c.All {
		r.AfterTime = timestamppb.New(time.Now().Add(-c.Since))
	}
	return a.read(r, a.printRecord)
}

type auditExport struct{ selection }

func (c *auditExport) Run(a *api) error {
	return a.read(c.request(), func(r *stokerv1.AuditRecord) error { return a.line(r) })
}

type auditWhois struct {
	AccessKey  string `xor:"by" required:"" placeholder:"ASIA..." help:"An access key id, as in S3 access logs and CloudTrail."`
	Session    string `xor:"by" required:"" placeholder:"NAME" help:"A session's name: the last part of its ARN in CloudTrail."`
	Credential string `xor:"by" required:"" placeholder:"ID" help:"A credential's id."`
}

var recordColumns = []column[*stokerv1.AuditRecord]{
	{title: "TENANT", value: (*stokerv1.AuditRecord).GetTenant},
	{title: "USER", value: (*stokerv1.AuditRecord).GetLogin},
	{title: "AGENT", value: (*stokerv1.AuditRecord).GetAgent},
	{title: "GRANT", value: (*stokerv1.AuditRecord).GetGrant},
	{title: "EVENT", value: (*stokerv1.AuditRecord).GetEvent},
	{title: "TIME", value: func(r *stokerv1.AuditRecord) string { return at(r.GetTime()) }},
	{title: "UNTIL", value: func(r *stokerv1.AuditRecord) string { return at(r.GetExpireTime()) }},
	{title: "CALLER", value: (*stokerv1.AuditRecord).GetActor},
	{title: "CERTIFICATE", value: (*stokerv1.AuditRecord).GetCertificateSerial},
	{title: "FROM", value: (*stokerv1.AuditRecord).GetPeer},
	{title: "ACCOUNT", value: (*stokerv1.AuditRecord).GetAccount},
	{title: "CREDENTIAL", value: (*stokerv1.AuditRecord).GetCredentialId},
	{title: "ACCESS KEY", value: (*stokerv1.AuditRecord).GetAccessKeyId},
	{title: "SESSION NAME", value: (*stokerv1.AuditRecord).GetSessionName},
	{title: "POLICY HASH", value: (*stokerv1.AuditRecord).GetPolicyHash},
	{title: "RECORD", value: func(r *stokerv1.AuditRecord) string { return fmt.Sprint(r.GetWriter(), "/", r.GetSequence()) }},
}

func (c *auditWhois) Run(a *api) error {
	r := &stokerv1.WhoIsRequest{}
	switch {
	case c.AccessKey != "":
		r.Credential = &stokerv1.WhoIsRequest_AccessKeyId{AccessKeyId: c.AccessKey}
	case c.Session != "":
		r.Credential = &stokerv1.WhoIsRequest_SessionName{SessionName: c.Session}
	default:
		r.Credential = &stokerv1.WhoIsRequest_CredentialId{CredentialId: c.Credential}
	}
	answer, err := a.audit.WhoIs(a.ctx, r)
	if err != nil {
		return err
	}
	return show(a.output, recordColumns, answer.GetRecord())
}

type auditVerify struct{}

var chainColumns = []column[*stokerv1.ChainReport]{
	{title: "WRITER", value: (*stokerv1.ChainReport).GetWriter},
	{title: "FIRST", value: func(c *stokerv1.ChainReport) string { return fmt.Sprint(c.GetFirstSequence()) }},
	{title: "LAST", value: func(c *stokerv1.ChainReport) string { return fmt.Sprint(c.GetLastSequence()) }},
	{title: "CHECKED", value: func(c *stokerv1.ChainReport) string { return fmt.Sprint(c.GetRecords()) }},
	{title: "RESULT", value: func(c *stokerv1.ChainReport) string {
		if c.GetFault() == "" {
			return "whole"
		}
		return fmt.Sprintf("at %d: %s", c.GetFaultSequence(), c.GetFault())
	}},
}

func (c *auditVerify) Run(a *api) error {
	r, err := a.audit.Verify(a.ctx, &stokerv1.VerifyRequest{})
	if err != nil {
		return err
	}
	if a.json {
		err = a.object(r)
	} else {
		err = showList(a.output, chainColumns, r.GetChains())
	}
	if err == nil && !r.GetIntact() {
		err = errors.New("the audit trail is not whole: records were altered or removed")
	}
	return err
}
