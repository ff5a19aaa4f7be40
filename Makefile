# make book | make test | make chapter C=mercer | make accept [C=mercer] | make site-test
# make try | make pdf | make archive
PYTHON ?= python3
# Handed to pip as it stands, for another index or a proxy.
PIP_FLAGS ?=
# The versions to install; /dev/null takes the newest.
CONSTRAINTS ?= constraints.txt
C ?=
DOIT := .venv/bin/python -m doit -f tools/dodo.py -d .

.PHONY: book test chapter accept record try site-test pdf archive clean
book: .venv/ready
	@GOAL=book $(DOIT) book

test: .venv/ready
	@GOAL=test $(DOIT) test

chapter: .venv/ready
	@test -n "$(C)" || { echo 'Which one? make chapter C=mercer'; exit 2; }
	@GOAL=chapter:$(C) $(DOIT) render:$(C)

accept: .venv/ready
	@.venv/bin/python tools/accept.py $(C)

# A full-size run of one chapter into book/runs/, from the data in the folder DATA.
record: .venv/ready
	@test -n "$(C)" || { echo 'Which one? make record C=eigenfunctions DATA=folder'; exit 2; }
	@CLTHEORY_RECORD=$(C) CLTHEORY_DATA="$(DATA)" .venv/bin/python tools/record.py $(C)

# Python and SymPy for checks that run in the page; `make book` tries it too, and does without.
try: .venv/ready
	@GOAL=try $(DOIT) try

site-test: .venv/ready
	@GOAL=site-test $(DOIT) site_test

pdf archive: .venv/ready
	@GOAL=$@ $(DOIT) $@

clean:
	rm -rf _build

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 2; }
	@echo 'Setting up .venv, once: about 2 GB and a few minutes'
	@$(PYTHON) -m venv .venv || { echo 'No environment in .venv: see above. Where the folder is' \
	  'read-only: cp -r . ~/book && cd ~/book. On Debian: apt install python3-venv.' \
	  'Then: make $(MAKECMDGOALS)'; exit 2; }
	.venv/bin/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c $(CONSTRAINTS) -e '.[book,test]' || \
	  { echo 'The installation stopped: see above. What is there is kept. With a network, or with' \
	  'another index: make $(MAKECMDGOALS) PIP_FLAGS="--index-url ADDRESS"'; exit 2; }
	@mkdir -p _build && touch $@
