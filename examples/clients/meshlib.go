// Package meshlib is a client of meshlib-server's HTTP API in one file, without anything beside the
// standard library: copy it into your own module. It is written against GET /openapi.json, and asks
// the nodes that it is given in turn: who cannot be reached, or says that it is not ready or leaves,
// is passed over.
package meshlib

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// answerBytesMax bounds what is read of one answer.
const answerBytesMax = 64 << 20

// Client asks nodes of one cluster. It may be used by several goroutines.
type Client struct {
	nodes []string
	token string
	http  *http.Client
	first atomic.Uint32 // the node that has answered last
}

// New makes a client.
//
// The nodes are addresses such as "http://10.0.0.1:8000", at least one; an empty token is none; a
// timeout of 0 waits as long as the context does.
func New(nodes []string, token string, timeout time.Duration) (*Client, error) {
	if len(nodes) == 0 {
		return nil, errors.New("meshlib: no node is given")
	}
	made := &Client{token: token, http: &http.Client{Timeout: timeout}}
	for _, node := range nodes {
		address, err := url.Parse(node)
		if err != nil || address.Host == "" {
			return nil, fmt.Errorf("meshlib: %q is no address such as http://host:port", node)
		}
		made.nodes = append(made.nodes, strings.TrimRight(node, "/"))
	}
	return made, nil
}

// Error is an answer that says no; nothing was changed.
type Error struct {
	Status  int
	Code    string
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("meshlib: %d %s: %s", e.Status, e.Code, e.Message)
}

// Decision says whether a request may pass.
type Decision struct {
	Allowed     bool    `json:"allowed"`
	Limit       int64   `json:"limit"`
	Remaining   int64   `json:"remaining"`
	RetryAfterS float64 `json:"retry_after_s"`
	Confirmed   bool    `json:"confirmed"`
}

// RetryAfter is how long the same request has to wait, if nobody else comes.
func (d Decision) RetryAfter() time.Duration {
	return time.Duration(d.RetryAfterS * float64(time.Second))
}

// Worker is one worker, as it is written.
type Worker struct {
	ModelID string   `json:"model_id"`
	URL     string   `json:"url"`
	Health  bool     `json:"health"`
	Load    float64  `json:"load"`
	TTLS    *float64 `json:"ttl_s,omitempty"`
}

// KnownWorker is one worker, as it is known.
type KnownWorker struct {
	WorkerID string `json:"worker_id"`
	Worker
	Version int64 `json:"version"`
}

// RouteOptions are what may be said of a prompt beside its text.
type RouteOptions struct {
	Tokens     *float64 `json:"tokens,omitempty"`
	Exclude    []string `json:"exclude,omitempty"`
	Candidates []string `json:"candidates,omitempty"`
	Salt       string   `json:"salt,omitempty"`
}

// Routed says where a prompt goes. RequestID names it for FirstToken, Complete and Renew.
type Routed struct {
	WorkerID  string `json:"worker_id"`
	URL       string `json:"url"`
	Matched   int    `json:"matched"`
	Reason    string `json:"reason"`
	RequestID string `json:"request_id"`
}

// Health is how a node sees its cluster.
type Health struct {
	Status      string   `json:"status"`
	NodeName    string   `json:"node_name"`
	ClusterSize int      `json:"cluster_size"`
	Problems    []string `json:"problems"`
}

// Acquire decides one request, and counts it when it is admitted. A refusal is no error.
func (c *Client) Acquire(ctx context.Context, key string, cost int64) (Decision, error) {
	var answer Decision
	body := map[string]any{"key": key, "cost": cost}
	err := c.call(ctx, "POST", "/mesh/rate-limit/acquire", body, &answer)
	return answer, err
}

// SetGlobalLimit sets the global limit for the whole cluster; 0 switches it off.
func (c *Client) SetGlobalLimit(ctx context.Context, perSecond int64) error {
	return c.call(ctx, "POST", "/mesh/rate-limit", map[string]any{"limit_per_second": perSecond}, nil)
}

// Route chooses a worker for a prompt. Say Complete of it when the request has ended.
func (c *Client) Route(
	ctx context.Context, modelID, text string, options RouteOptions,
) (Routed, error) {
	var answer Routed
	body := struct {
		Text string `json:"text"`
		RouteOptions
	}{text, options}
	err := c.call(ctx, "POST", "/mesh/route/"+url.PathEscape(modelID), body, &answer)
	return answer, err
}

// FirstToken says that a request is prefilled.
func (c *Client) FirstToken(ctx context.Context, modelID, requestID string) error {
	body := map[string]any{"request_id": requestID}
	return c.call(ctx, "POST", "/mesh/route/"+url.PathEscape(modelID)+"/first_token", body, nil)
}

// Complete says that a request has ended, however it did.
func (c *Client) Complete(ctx context.Context, modelID, requestID string) error {
	body := map[string]any{"request_id": requestID}
	return c.call(ctx, "POST", "/mesh/route/"+url.PathEscape(modelID)+"/complete", body, nil)
}

// Renew says that a request goes on: without it one counts for ten minutes.
func (c *Client) Renew(ctx context.Context, modelID, requestID string) error {
	body := map[string]any{"request_id": requestID}
	return c.call(ctx, "POST", "/mesh/route/"+url.PathEscape(modelID)+"/renew", body, nil)
}

// PutWorker tells the cluster of a worker, or of what is different about it.
func (c *Client) PutWorker(ctx context.Context, workerID string, worker Worker) error {
	return c.call(ctx, "PUT", "/mesh/workers/"+url.PathEscape(workerID), worker, nil)
}

// DeleteWorker tells the cluster that a worker is gone.
func (c *Client) DeleteWorker(ctx context.Context, workerID string) error {
	return c.call(ctx, "DELETE", "/mesh/workers/"+url.PathEscape(workerID), nil, nil)
}

// Heartbeat says of a worker with a time to live that it lives.
func (c *Client) Heartbeat(ctx context.Context, workerID string) error {
	return c.call(ctx, "POST", "/mesh/workers/"+url.PathEscape(workerID)+"/heartbeat", nil, nil)
}

// Workers returns every worker.
func (c *Client) Workers(ctx context.Context) ([]KnownWorker, error) {
	var answer []KnownWorker
	err := c.call(ctx, "GET", "/mesh/workers", nil, &answer)
	return answer, err
}

// PutPolicy sets the routing policy of a model; the configuration is JSON, such as "{}".
func (c *Client) PutPolicy(ctx context.Context, modelID, policyType, config string) error {
	body := map[string]any{"policy_type": policyType, "config": config}
	return c.call(ctx, "PUT", "/mesh/policies/"+url.PathEscape(modelID), body, nil)
}

// Health returns how the node that answers sees its cluster.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var answer Health
	err := c.call(ctx, "GET", "/mesh/health", nil, &answer)
	return answer, err
}

// call asks the nodes in turn, beginning with the one that has answered last, until one has.
func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return err
		}
	}
	begin := c.first.Load()
	var failed error
	for step := range len(c.nodes) {
		at := (int(begin) + step) % len(c.nodes)
		err, again := c.ask(ctx, c.nodes[at], method, path, sent, answer)
		if err == nil || !again || ctx.Err() != nil {
			if err == nil {
				c.first.Store(uint32(at))
			}
			return err
		}
		failed = err
	}
	return failed
}

// ask asks one node; again says whether another one may be asked the same: nothing has happened.
func (c *Client) ask(
	ctx context.Context, node, method, path string, sent []byte, answer any,
) (err error, again bool) {
	request, err := http.NewRequestWithContext(ctx, method, node+path, bytes.NewReader(sent))
	if err != nil {
		return err, false
	}
	if sent != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		// A connection that was never made has done nothing; what broke off later may have.
		return err, strings.Contains(err.Error(), "connection refused") || method == "GET"
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return err, method == "GET"
	}
	isDecision := response.StatusCode == 429 && bytes.Contains(data, []byte(`"allowed"`))
	if response.StatusCode >= 300 && !isDecision {
		problem := &Error{Status: response.StatusCode}
		var told struct {
			Error string `json:"error"`
			Code  string `json:"code"`
		}
		if json.Unmarshal(data, &told) == nil {
			problem.Message, problem.Code = told.Error, told.Code
		}
		return problem, problem.Code == "not_ready" || problem.Code == "leaving"
	}
	if answer == nil {
		return nil, false
	}
	return json.Unmarshal(data, answer), false
}
