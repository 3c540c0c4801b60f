"""The client in Go: what it sends is in the API's own document, and it works against a node."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servers import TOKEN, Launcher

from meshlib_server.app import http_routes
from meshlib_server.describing import openapi_document
from meshlib_server.resources import operations_of

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "clients" / "meshlib.go"
CALL = re.compile(r'c\.call\(ctx, "(\w+)", "([^"]+)"(?:\+url\.PathEscape\(\w+\))?(?:\+"([^"]*)")?')

PROGRAM = """
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"example.org/try/meshlib"
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	ctx := context.Background()
	// The first is nobody: it is passed over.
	mesh, err := meshlib.New([]string{"http://127.0.0.1:1", os.Args[1]}, os.Args[2], 10*time.Second)
	check(err)
	check(mesh.SetGlobalLimit(ctx, 1000))
	decision, err := mesh.Acquire(ctx, "global", 1000)
	check(err)
	check(mesh.PutPolicy(ctx, "m/1", "cache_aware", "{}"))
	check(mesh.PutWorker(ctx, "w/1", meshlib.Worker{ModelID: "m/1", URL: "http://w", Health: true}))
	workers, err := mesh.Workers(ctx)
	check(err)
	routed, err := mesh.Route(ctx, "m/1", "a prompt", meshlib.RouteOptions{})
	check(err)
	check(mesh.FirstToken(ctx, "m/1", routed.RequestID))
	check(mesh.Complete(ctx, "m/1", routed.RequestID))
	health, err := mesh.Health(ctx)
	check(err)
	check(mesh.DeleteWorker(ctx, "w/1"))
	var problem *meshlib.Error
	_, err = mesh.Acquire(ctx, "nobody", 1)
	if !errors.As(err, &problem) {
		fmt.Println("no problem was told", err)
		os.Exit(1)
	}
	fmt.Println(decision.Allowed, len(workers), workers[0].ModelID, routed.WorkerID,
		health.ClusterSize, problem.Status, problem.Code)
}
"""


def document() -> dict[str, Any]:
    """Return the document of the API."""
    return openapi_document(operations_of(http_routes()))


def test_each_call_is_one_that_the_document_has() -> None:
    """By its method, and by its path with a name in the place of what is escaped."""
    paths = document()["paths"]
    there = {
        (method.upper(), re.sub(r"\{\w+\}", "*", path)) for path in paths for method in paths[path]
    }
    sent = {
        (method, path + ("*" if path.endswith("/") else "") + rest)
        for method, path, rest in CALL.findall(SOURCE.read_text())
    }

    assert len(sent) > 10
    assert SOURCE.read_text().count("c.call(ctx") == len(CALL.findall(SOURCE.read_text()))
    assert sent - there == set()


def names_in(tree: Any) -> Iterator[str]:
    """Yield the names of all properties in a document."""
    if isinstance(tree, dict):
        yield from tree.get("properties", {})
        for inner in tree.values():
            yield from names_in(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from names_in(inner)


def test_each_field_is_one_that_the_document_has() -> None:
    """What is sent, and what is read of an answer."""
    text = SOURCE.read_text()
    fields = set(re.findall(r'json:"(\w+)', text)) | set(re.findall(r'any\{"(\w+)"', text))

    assert len(fields) > 15
    assert fields - set(names_in(document())) == set()


@pytest.mark.slow
def test_it_works_against_a_node(own_launcher: Launcher, tmp_path: Path) -> None:
    """Compiled, and run once through what a router does."""
    go = shutil.which("go")
    if go is None:
        if os.environ.get("MESHLIB_GO_REQUIRED"):
            pytest.fail("there is no Go")
        pytest.skip("there is no Go")
    node = own_launcher.node("gopher")
    node.start()
    (tmp_path / "meshlib").mkdir()
    shutil.copy(SOURCE, tmp_path / "meshlib" / "meshlib.go")
    (tmp_path / "main.go").write_text(PROGRAM)
    (tmp_path / "go.mod").write_text("module example.org/try\n\ngo 1.22\n")
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    vetted = subprocess.run(
        [go, "vet", "./..."],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (vetted.returncode, vetted.stderr) == (0, "")
    result = subprocess.run(
        [go, "run", ".", f"http://{node.address}", TOKEN],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip

    assert json.dumps(result.stdout) == json.dumps("true 1 m/1 w/1 1 404 not_found\n")
