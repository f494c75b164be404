#!/usr/bin/env bash
# gpu_check.sh OUT [options of gpu_check.py]: see gpu_check.py. No network is used.
#
# Where wheels lie beside the checkout (../wheels, or $WHEELS) they are installed into OUT/venv, which sees the packages
# of $PYTHON (python3), its torch among them; without wheels $PYTHON is used as it is. To fill the folder elsewhere:
#   pip wheel --wheel-dir wheels 'CHECKOUT[dev]' && rm -f wheels/{jgcl_ray,torch,nvidia,triton,cuda}*
set -euo pipefail
case ${1:--} in
  -*) echo "error: the folder for the results is missing; usage: gpu_check.sh OUT [options of gpu_check.py]" >&2; exit 2 ;;
esac
out=$1
shift
checkout=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
wheels=${WHEELS:-$checkout/../wheels}
mkdir -p "$out" || { echo "error: $out: no folder can be made there; give another one" >&2; exit 2; }
if compgen -G "$wheels/*.whl" > /dev/null; then
  [ -x "$out/venv/bin/python" ] || "$python" -m venv --system-site-packages "$out/venv"
  "$out/venv/bin/python" -m pip install --quiet --no-index --no-deps "$wheels"/*.whl
  python=$out/venv/bin/python
fi
export PYTHONPATH=$checkout${PYTHONPATH:+:$PYTHONPATH}
exec "$python" "$checkout/benchmarks/gpu_check.py" "$out" --seconds $((510 - SECONDS)) "$@"
