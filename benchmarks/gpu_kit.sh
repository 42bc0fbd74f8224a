#!/bin/sh
# A folder that measures a GPU where there is no network: our code, benchmarks/gpu.py and the packages that they need.
#
#   sh benchmarks/gpu_kit.sh FOLDER [PYTHON_VERSION]     where pip reaches a registry, with our dependencies
#   sh FOLDER/run.sh [options of gpu.py]                 on the machine with the GPU: its python3 must have torch
#   sh FOLDER/run.sh --rehearse                          every cell on a CPU: its python3 must have numba besides
#
# No cell begins after 8 minutes, none goes on 45 seconds later; figures are in FOLDER/gpu.json, written anew after each cell. Packages are
# compressed again as one (scipy's wheel alone is 34 MiB), without their tests: all is under 60 MiB.
set -eu
folder=${1:?usage: gpu_kit.sh FOLDER [PYTHON_VERSION]}
version=${2:-3.12}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
mkdir -p "$folder/code/benchmarks"
"$python" -m pip install --quiet --only-binary :all: --python-version "$version" --platform manylinux2014_x86_64 \
  --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 --constraint "$root/constraints.txt" \
  --upgrade --target "$folder/packages" \
  numpy safetensors tqdm scipy pandas optuna SQLAlchemy alembic pydantic PyYAML typer rich threadpoolctl platformdirs \
  pooch requests fsspec
find "$folder/packages" \( -name tests -o -name __pycache__ -o -name '*.dist-info' -prune -o -name bin \) -type d | \
  grep -v dist-info | xargs rm -rf
tar -C "$folder" -cf - packages | xz -6 -T0 > "$folder/packages.tar.xz"
rm -rf "$folder/packages"
cp -R "$root/finetune" "$root/hpo" "$root/studies" "$folder/code/"
cp "$root/benchmarks/gpu.py" "$root/benchmarks/gpu_cells.py" "$folder/code/benchmarks/"
find "$folder/code" -name __pycache__ -type d -prune -exec rm -rf {} +
OMP_NUM_THREADS=1 PYTHONPATH="$root" "$python" "$root/benchmarks/gpu.py" --device cpu --write-cpu-losses "$folder/cpu.json"
cat > "$folder/run.sh" <<'END'
#!/bin/sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
cd "$here"
[ -d packages ] || "$python" -c 'import tarfile; tarfile.open("packages.tar.xz").extractall(".", filter="data")'
PYTHONPATH="$here/code:$here/packages${PYTHONPATH:+:$PYTHONPATH}" exec "$python" code/benchmarks/gpu.py --out gpu.json --cpu-losses cpu.json "$@"
END
echo "$folder: $(du -sm "$folder" | cut -f1) MiB"
