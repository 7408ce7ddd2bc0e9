finetune --task tag --model model --train wnut17train.conll --dev emerging.dev.conll --out ner --predictions dev.jsonl \
    --epochs 4 --learning-rate 1e-3 --patience 0 --seed 42 --device flex --lines
