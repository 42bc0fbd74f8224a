#!/bin/sh
# A folder that measures a GPU where there is no network: our code, benchmarks/gpu.py and the few wheels that it needs.
#
#   sh benchmarks/gpu_kit.sh FOLDER [PYTHON_VERSION]     where pip reaches a registry, with our dependencies
#   sh FOLDER/run.sh [options of gpu.py]                 on the machine with the GPU: its python3 must have torch
#
# No cell begins after 8 minutes; figures are in FOLDER/gpu.json, written anew after each cell.
set -eu
folder=${1:?usage: gpu_kit.sh FOLDER [PYTHON_VERSION]}
version=${2:-3.12}
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$folder/wheels" "$folder/code/benchmarks"
python3 -m pip download --quiet --only-binary :all: --python-version "$version" --platform manylinux2014_x86_64 \
  --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 --no-deps --dest "$folder/wheels" numpy safetensors tqdm
cp -R "$root/finetune" "$folder/code/"
cp "$root/benchmarks/gpu.py" "$folder/code/benchmarks/"
find "$folder/code" -name __pycache__ -type d -prune -exec rm -rf {} +
OMP_NUM_THREADS=1 PYTHONPATH="$root" python3 "$root/benchmarks/gpu.py" --device cpu --encoders tiny small \
  --write-cpu-losses "$folder/cpu.json"
cat > "$folder/run.sh" <<'EOF'
#!/bin/sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
[ -d "$here/packages" ] || "$python" -m pip install --quiet --no-index --no-deps --target "$here/packages" "$here"/wheels/*.whl
cd "$here"
PYTHONPATH="$here/code:$here/packages" exec "$python" code/benchmarks/gpu.py --out gpu.json --cpu-losses cpu.json "$@"
EOF
echo "$folder: $(du -sm "$folder" | cut -f1) MiB"
