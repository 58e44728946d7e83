"""A small server that speaks as much of the Hugging Face hub's HTTP as pushing and pulling use (LFS, not Xet).

A fake, because no hub is in reach of the tests: repositories in memory, one branch, a commit for each push. `stall` names
an event at which a request stands still, so that a client can be killed there.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

LARGE = 2_000


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, int] = {}
        self.blobs: dict[str, bytes] = {}
        self.stall = ""
        self.stalled = threading.Event()
        self.seen: list[str] = []
        self.uploads = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"

    def sha(self, repo):
        return hashlib.sha1(f"{repo} {self.commits[repo]}".encode()).hexdigest()

    def wait_if(self, event):
        if self.stall == event:
            self.stalled.set()
            time.sleep(60)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status=200, value=None, raw=b"", headers=()):
        body = json.dumps(value).encode() if value is not None else raw
        self.send_response(status)
        for key, text in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(BrokenPipeError):  # of a client that was killed
                self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self):
        hub, path, raw = self.server, unquote(self.path.partition("?")[0]), self.body()
        hub.seen.append(f"POST {path}")
        if path == "/api/repos/create":
            value = json.loads(raw)
            repo = f"{value.get('organization') or 'me'}/{value['name']}"
            known = repo in hub.repos
            hub.repos.setdefault(repo, {})
            hub.commits.setdefault(repo, 0)
            return self.answer(409 if known else 200, {"url": f"{hub.endpoint}/{repo}", "id": repo, "name": repo})
        if path == "/api/validate-yaml":
            return self.answer(value={"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/[^/]+", path):
            files = json.loads(raw)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] > LARGE else "regular", "shouldIgnore": False}
                for f in files
            ]
            return self.answer(value={"files": modes, "commitOid": hub.sha(found[1])})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = []
            for entry in json.loads(raw)["objects"]:
                address = {"href": f"{hub.endpoint}/lfs/{entry['oid']}"}
                actions = {} if entry["oid"] in hub.blobs else {"actions": {"upload": address}}
                objects.append({"oid": entry["oid"], "size": entry["size"], **actions})
            return self.answer(value={"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/(.+)/commit/[^/]+", path):
            hub.wait_if("commit")
            lines = [json.loads(line) for line in raw.splitlines()]
            files = {}
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.blobs[value["oid"]]
            hub.repos[found[1]] |= files
            hub.commits[found[1]] += 1
            oid = hub.sha(found[1])
            return self.answer(
                value={"commitUrl": f"{hub.endpoint}/{found[1]}/commit/{oid}", "commitOid": oid, "hookOutput": ""}
            )
        return self.answer(404, {"error": f"nothing at {path}"})

    def do_PUT(self):
        hub, raw = self.server, self.body()
        hub.wait_if("upload")
        hub.uploads += 1
        hub.blobs[self.path.removeprefix("/lfs/")] = raw
        assert hashlib.sha256(raw).hexdigest() == self.path.removeprefix("/lfs/")
        self.answer()

    def do_GET(self):
        hub, path = self.server, unquote(self.path.partition("?")[0])
        hub.seen.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            repo = found[1]
            if repo not in hub.repos:
                return self.answer(404, {"error": "no such repository"}, headers={"X-Error-Code": "RepoNotFound"})
            siblings = [{"rfilename": name, "size": len(raw)} for name, raw in hub.repos[repo].items()]
            return self.answer(value={"id": repo, "sha": hub.sha(repo), "siblings": siblings, "private": False})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            raw = hub.repos.get(found[1], {}).get(found[3])
            if raw is None:
                return self.answer(404, {"error": "no such file"}, headers={"X-Error-Code": "EntryNotFound"})
            if self.command == "GET" and found[3].endswith(".safetensors"):
                hub.wait_if("download")
            headers = {
                "ETag": f'"{hashlib.sha256(raw).hexdigest()}"',
                "X-Repo-Commit": hub.sha(found[1]),
                "Accept-Ranges": "bytes",
            }
            return self.answer(raw=raw, headers=headers)
        return self.answer(404, {"error": f"nothing at {path}"})

    do_HEAD = do_GET
