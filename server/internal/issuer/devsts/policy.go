package devsts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// checkPolicy checks that a session policy has the grammar of the IAM policy
// language, as far as one can without knowing any service's actions. Element
// names count exactly, and none may occur twice.
func checkPolicy(policy string) error {
	if err := policyGrammar([]byte(policy)); err != nil {
		return refuse(http.StatusBadRequest, "MalformedPolicyDocument", "Syntax errors in policy: %s.", err)
	}
	return nil
}

func policyGrammar(policy []byte) error {
	document, err := object(policy)
	if err != nil {
		return err
	}
	for name := range document {
		switch name {
		case "Version", "Id", "Statement":
		default:
			return fmt.Errorf("unknown element %s", clip(name))
		}
	}
	if raw, given := document["Version"]; given {
		var version string
		if json.Unmarshal(raw, &version) != nil || version != "2012-10-17" && version != "2008-10-17" {
			return errors.New("the policy must contain a valid version string")
		}
	}
	statements, err := oneOrMore(document["Statement"])
	if err != nil || len(statements) == 0 {
		return errors.New("the policy must contain at least one statement")
	}
	for i, raw := range statements {
		if err := statementGrammar(raw); err != nil {
			return fmt.Errorf("statement %d: %w", i+1, err)
		}
	}
	return nil
}

func statementGrammar(raw json.RawMessage) error {
	statement, err := object(raw)
	if err != nil {
		return err
	}
	for name := range statement {
		switch name {
		case "Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition":
		case "Principal", "NotPrincipal":
			return errors.New("policy document should not specify a principal")
		default:
			return fmt.Errorf("unknown element %s", clip(name))
		}
	}
	var effect string
	if json.Unmarshal(statement["Effect"], &effect) != nil || effect != "Allow" && effect != "Deny" {
		return errors.New("effect must be Allow or Deny")
	}
	if err := exactlyOne(statement, "Action", "NotAction", actionGrammar); err != nil {
		return err
	}
	if err := exactlyOne(statement, "Resource", "NotResource", resourceGrammar); err != nil {
		return err
	}
	if condition, given := statement["Condition"]; given {
		return conditionGrammar(condition)
	}
	return nil
}

// exactlyOne checks an element that has a negated form.
func exactlyOne(statement map[string]json.RawMessage, name, negated string, grammar func(string) error) error {
	raw, plain := statement[name]
	if not, given := statement[negated]; given {
		if plain {
			return fmt.Errorf("%s and %s exclude each other", name, negated)
		}
		raw = not
	}
	values, err := texts(raw)
	if err != nil || len(values) == 0 {
		return fmt.Errorf("policy statement must contain %ss", strings.ToLower(name))
	}
	for _, value := range values {
		if err := grammar(value); err != nil {
			return err
		}
	}
	return nil
}

func actionGrammar(action string) error {
	vendor, verb, ok := strings.Cut(action, ":")
	if action == "*" || ok && vendor != "" && verb != "" && !strings.ContainsAny(action, " /") {
		return nil
	}
	return errors.New("actions/conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc")
}

func resourceGrammar(resource string) error {
	if resource == "*" || strings.HasPrefix(resource, "arn:") && strings.Count(resource, ":") >= 5 {
		return nil
	}
	return fmt.Errorf("resource %s must be in ARN format or \"*\"", clip(resource))
}

// conditionGrammar checks {operator: {key: value or values}}.
func conditionGrammar(raw json.RawMessage) error {
	operators, err := object(raw)
	if err != nil {
		return fmt.Errorf("condition: %w", err)
	}
	for operator, raw := range operators {
		keys, err := object(raw)
		if err != nil {
			return fmt.Errorf("condition %s: %w", clip(operator), err)
		}
		for key, raw := range keys {
			values, err := oneOrMore(raw)
			if err != nil {
				return fmt.Errorf("condition %s: %w", clip(key), err)
			}
			for _, value := range values {
				if len(value) == 0 || value[0] == '{' || value[0] == '[' || string(value) == "null" {
					return fmt.Errorf("condition %s: values must be strings, numbers or booleans", clip(key))
				}
			}
		}
	}
	return nil
}

// object reads a JSON object member by member, because a decoder into a map or
// struct lets repeated members pass.
func object(raw []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("a JSON object is missing")
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		name, isText := token.(string)
		if err != nil || !isText {
			return nil, errors.New("the JSON is broken")
		}
		if _, again := members[name]; again {
			return nil, fmt.Errorf("the element %s occurs twice", clip(name))
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("the JSON is broken")
		}
		members[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("the JSON is broken")
	}
	if d.More() || !json.Valid(raw) {
		return nil, errors.New("something follows the JSON object")
	}
	return members, nil
}

// oneOrMore reads a value or an array of values.
func oneOrMore(raw json.RawMessage) ([]json.RawMessage, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, errors.New("a value is missing")
	}
	if raw[0] != '[' {
		return []json.RawMessage{raw}, nil
	}
	var values []json.RawMessage
	err := json.Unmarshal(raw, &values)
	return values, err
}

// texts reads a string or an array of strings.
func texts(raw json.RawMessage) ([]string, error) {
	values, err := oneOrMore(raw)
	if err != nil {
		return nil, err
	}
	list := make([]string, len(values))
	for i, value := range values {
		if len(value) == 0 || value[0] != '"' {
			return nil, errors.New("a string is missing")
		}
		if err := json.Unmarshal(value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}
