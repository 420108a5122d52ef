"""What actions/attest does, with an authority of its own: SUBJECTS TYPE PREDICATE INTO."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from sigstore_stub import Sigstore

subjects, kind, predicate, into = sys.argv[1:]
lines = [line.split(maxsplit=1) for line in Path(subjects).read_text().splitlines()]
statement = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": name, "digest": {"sha256": digest}} for digest, name in lines],
    "predicateType": kind,
    "predicate": json.loads(Path(predicate).read_text()),
}
sigstore = Sigstore(Path(into), logged=False)
bundle = sigstore.bundle(
    json.dumps(statement).encode(),
    identity=f"https://github.com/{os.environ['GITHUB_WORKFLOW_REF']}",
    repository="https://github.com/acme/models",
)
Path(into, "bundle.json").write_text(json.dumps(bundle) + "\n")
Path(into, "trusted_root.json").write_text(json.dumps(sigstore.trusted_root()) + "\n")
