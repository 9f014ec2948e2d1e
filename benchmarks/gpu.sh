#!/bin/sh
# The tables of benchmarks/README.md on a GPU, and what only a GPU shows: about 10 minutes on an H100.
#     OUT=results sh benchmarks/gpu.sh
# Without DATA_DIR, the data are read from data/ beside script.py. Each part is bounded and writes to $OUT, so that
# one that fails costs the others nothing.
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-gpu_results}
mkdir -p "$OUT"
part() {  # NAME SECONDS COMMAND: its output in $OUT/NAME.txt
    name=$1 seconds=$2
    shift 2
    echo "== $name: $*"
    timeout "$seconds" "$@" > "$OUT/$name.txt" 2>&1
    echo "exit $?" >> "$OUT/$name.txt"
    tail -n 6 "$OUT/$name.txt"
}

nvidia-smi > "$OUT/nvidia-smi.txt" 2>&1
part mnist_99 120 python benchmarks/time_to_accuracy.py experiment=mnist_99 --target 0.99 --seeds 10 --json "$OUT/mnist_99.json"
part throughput 150 python benchmarks/throughput.py --runs 3 --images 2000 --json "$OUT/throughput.json"
part throughput_fp32 90 python benchmarks/throughput.py precision=fp32 --runs 3 --images 2000 --models cnn vit --json "$OUT/throughput_fp32.json"
part startup 150 python benchmarks/startup.py --json "$OUT/startup.json"

# Resume: a run that is stopped in its middle ends with the same weights as one that is not.
exact="model=cnn dataset=mnist epochs=3 limit=20000 deterministic=true compile=false checkpoint.every=0.5 checkpoint.unit=seconds"
part whole 60 python script.py $exact hydra.run.dir="$OUT/whole"
part stopped 60 timeout -s INT 12 python script.py $exact hydra.run.dir="$OUT/stopped"
part resumed 60 python script.py resume="$OUT/stopped"
part equal 30 python - "$OUT/whole/last.pt" "$OUT/stopped/last.pt" <<'END'
import sys, torch
a, b = (torch.load(path)["model"] for path in sys.argv[1:])
print("equal to the last bit:", all(torch.equal(a[name], b[name]) for name in a))
END
# No step waits for the device: torch names each place that does, outside of the ends of epochs.
part syncs 60 python - <<'END'
import sys, warnings
sys.path[:0] = ["benchmarks", "."]
import torch
from experiment import Experiment, composed
experiment = Experiment.prepare(composed(["model=cnn", "dataset=mnist", "limit=10000", "ema=0.99", "grad_clip=1",
                                          "augmentation=[crop_flip,cutout,mixup,randaugment]", "compile=false"]))
experiment.train_epoch()
experiment.state.losses = []
torch.cuda.set_sync_debug_mode("warn")
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    experiment.train_epoch()
places = {f"{w.filename}:{w.lineno}" for w in found}
print(len(found), "waits in", experiment.state.steps[0], "steps, at", *sorted(places), sep="\n  ")
END
# The jobs of a sweep on their own GPUs, and one run on all, where there are several.
if [ "$(nvidia-smi -L | wc -l)" -gt 1 ]; then
    part own_gpus 90 python script.py -m model=linear,mlp hydra/launcher=local name=own_gpus
    part distributed 150 python benchmarks/distributed.py --processes 2 --images 50000 --json "$OUT/distributed.json"
    part device 60 python script.py model=mlp device=cuda:1 epochs=1
fi
