// The flags of llama-server, a line each: names, the last one in full; "!" and the names that say the opposite; "=" and
// what the help calls the value; "$" and the environment variable, where it is not LLAMA_ARG_ with the full name.
// Taken from what build 11669 says of itself; flags that it only knows in order to refuse them are left out.
#include <algorithm>

#include "sim/llama_flags.h"

namespace gpumod::sim {

namespace {

constexpr std::string_view table = R"(
-h --help --usage
--version
-cl --cache-list
--completion-bash
-t --threads =N
-tb --threads-batch =N
-C --cpu-mask =M
-Cr --cpu-range =lo-hi
--cpu-strict =<0|1>
--prio =N
--poll =<0...100>
-Cb --cpu-mask-batch =M
-Crb --cpu-range-batch =lo-hi
--cpu-strict-batch =<0|1>
--prio-batch =N
--poll-batch =<0|1>
-c --ctx-size =N
-n --predict --n-predict =N
-b --batch-size =N $LLAMA_ARG_BATCH
-ub --ubatch-size =N $LLAMA_ARG_UBATCH
--keep =N
--swa-full
-fa --flash-attn =[on|off|auto]
--perf ! --no-perf
-e --escape ! --no-escape
--rope-scaling ={none,linear,yarn} $LLAMA_ARG_ROPE_SCALING_TYPE
--rope-scale =N
--rope-freq-base =N
--rope-freq-scale =N
--yarn-orig-ctx =N
--yarn-ext-factor =N
--yarn-attn-factor =N
--yarn-beta-slow =N
--yarn-beta-fast =N
-kvo --kv-offload ! -nkvo --no-kv-offload
--repack ! -nr --no-repack
--no-host
-ctk --cache-type-k =TYPE
-ctv --cache-type-v =TYPE
-dt --defrag-thold =N
--rpc =SERVERS
-lm --load-mode =MODE
-lzm --lazy-mode =MODE
--numa =TYPE
-dev --device =<dev1,dev2,..>
--list-devices
-ot --override-tensor =PATTERN=TYPE,...
-cmoe --cpu-moe
-ncmoe --n-cpu-moe =N
--moe-cache-mib =N
-ncffn --n-cpu-ffn =N
-ngl --gpu-layers --n-gpu-layers =N
-sm --split-mode ={none,layer,row,tensor}
-ts --tensor-split =N0,N1,N2,...
-mg --main-gpu =INDEX
-fit --fit =[on|off]
-fitt --fit-target =MiB0,MiB1,MiB2,...
-fitc --fit-ctx =N
--check-tensors
--override-kv =KEY=TYPE:VALUE,...
--op-offload ! --no-op-offload
--lora =FNAME
--lora-scaled =FNAME:SCALE,...
--control-vector =FNAME
--control-vector-scaled =FNAME:SCALE,...
--control-vector-layer-range =START_END
-m --model =FNAME
-mu --model-url =MODEL_URL
-dr --docker-repo =[<repo>/]<model>[:quant]
-hf -hfr --hf-repo =<user>/<model>[:quant]
-hff --hf-file =FILE
-hft --hf-token =TOKEN $HF_TOKEN
--log-disable
--log-file =FNAME
--log-jsonl ! --no-log-jsonl
--log-colors =[on|off|auto]
-v --verbose --log-verbose
--offline
-lv --verbosity --log-verbosity =N
--log-prefix ! --no-log-prefix
--log-timestamps ! --no-log-timestamps
--spec-draft-type-k -ctkd --cache-type-k-draft =TYPE $LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K
--spec-draft-type-v -ctvd --cache-type-v-draft =TYPE $LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V
--samplers =SAMPLERS
-s --seed =SEED
--sampler-seq --sampling-seq =SEQUENCE
--ignore-eos
--temp --temperature =N
--top-k =N
--top-p =N
--min-p =N
--top-nsigma --top-n-sigma =N
--xtc-probability =N
--xtc-threshold =N
--typical --typical-p =N
--repeat-last-n =N
--repeat-penalty =N
--presence-penalty =N
--frequency-penalty =N
--dry-multiplier =N
--dry-base =N
--dry-allowed-length =N
--dry-penalty-last-n =N
--dry-sequence-breaker =STRING
--adaptive-target =N
--adaptive-decay =N
--dynatemp-range =N
--dynatemp-exp =N
--mirostat =N
--mirostat-lr =N
--mirostat-ent =N
-l --logit-bias =TOKEN_ID(+/-)BIAS
--grammar =GRAMMAR
--grammar-file =FNAME
-j --json-schema =SCHEMA
-jf --json-schema-file =FILE
-bs --backend-sampling
--spec-draft-hf -hfd -hfrd --hf-repo-draft =<user>/<model>[:quant] $LLAMA_ARG_SPEC_DRAFT_HF_REPO
--spec-draft-threads -td --threads-draft =N
--spec-draft-threads-batch -tbd --threads-batch-draft =N
--spec-draft-cpu-mask -Cd --cpu-mask-draft =M
--spec-draft-cpu-range -Crd --cpu-range-draft =lo-hi
--spec-draft-cpu-strict --cpu-strict-draft =<0|1>
--spec-draft-prio --prio-draft =N
--spec-draft-poll --poll-draft =<0|1>
--spec-draft-cpu-mask-batch -Cbd --cpu-mask-batch-draft =M
--spec-draft-cpu-strict-batch --cpu-strict-batch-draft =<0|1>
--spec-draft-prio-batch --prio-batch-draft =N
--spec-draft-poll-batch --poll-batch-draft =<0|1>
--spec-draft-override-tensor -otd --override-tensor-draft =PATTERN=TYPE,...
--spec-draft-cpu-moe -cmoed --cpu-moe-draft $LLAMA_ARG_SPEC_DRAFT_CPU_MOE
--spec-draft-n-cpu-moe --spec-draft-ncmoe -ncmoed --n-cpu-moe-draft =N $LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE
--spec-draft-n-max =N
--spec-draft-n-min =N
--spec-draft-n-ubatch =N
--spec-synth-len =L
--spec-synth-rates =P0,P1,...
--spec-draft-p-split --draft-p-split =P $LLAMA_ARG_SPEC_DRAFT_P_SPLIT
--spec-draft-p-min --draft-p-min =P $LLAMA_ARG_SPEC_DRAFT_P_MIN
--spec-draft-backend-sampling ! --no-spec-draft-backend-sampling
--spec-draft-sampling ={greedy,probabilistic}
--spec-draft-device -devd --device-draft =<dev1,dev2,..>
--spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft =N
--spec-draft-model -md --model-draft =FNAME $LLAMA_ARG_SPEC_DRAFT_MODEL
--spec-type =TYPE,...
--spec-ngram-mod-n-min =N
--spec-ngram-mod-n-max =N
--spec-ngram-mod-n-match =N
--spec-ngram-simple-size-n =N
--spec-ngram-simple-size-m =N
--spec-ngram-simple-min-hits =N
--spec-ngram-map-k-size-n =N
--spec-ngram-map-k-size-m =N
--spec-ngram-map-k-min-hits =N
--spec-ngram-map-k4v-size-n =N
--spec-ngram-map-k4v-size-m =N
--spec-ngram-map-k4v-min-hits =N
-lcs --lookup-cache-static =FNAME
-lcd --lookup-cache-dynamic =FNAME
--kv-unified-per-slot =N
-ctxcp --ctx-checkpoints --swa-checkpoints =N $LLAMA_ARG_CTX_CHECKPOINTS
-cms --checkpoint-min-step =N $LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT
-cram --cache-ram =N
-kvu --kv-unified ! -no-kvu --no-kv-unified
--cache-idle-slots ! --no-cache-idle-slots
--context-shift ! --no-context-shift
-r --reverse-prompt =PROMPT
-sp --special
--warmup ! --no-warmup
--spm-infill
--pooling ={none,mean,cls,last,rank}
-np --parallel =N $LLAMA_ARG_N_PARALLEL
-cb --cont-batching ! -nocb --no-cont-batching
-mm --mmproj =FILE
-mmu --mmproj-url =URL
--mmproj-auto ! --no-mmproj --no-mmproj-auto
--mmproj-offload ! --no-mmproj-offload
-mmdev --mmproj-device =DEVICE $MTMD_BACKEND_DEVICE
--image-min-tokens =N
--image-max-tokens =N
--mtmd-batch-max-tokens =N
--video-fps =N
--video-timestamp-interval =N
--video-ffmpeg-dir =DIR
-a --alias =STRING
--tags =STRING
--embd-normalize =N
--host =HOST
--port =PORT
--reuse-port
--path =PATH $LLAMA_ARG_STATIC_PATH
--cors-origins =ORIGINS
--cors-methods =METHODS
--cors-headers =HEADERS
--cors-credentials ! --no-cors-credentials
--api-prefix =PREFIX
--ui-config --webui-config =JSON $LLAMA_ARG_UI_CONFIG
--ui-config-file --webui-config-file =PATH $LLAMA_ARG_UI_CONFIG_FILE
--ui-mcp-proxy --webui-mcp-proxy ! --no-ui-mcp-proxy --no-webui-mcp-proxy $LLAMA_ARG_UI_MCP_PROXY
--tools =TOOL1,TOOL2,...
--tools-runtime =OPTION
--mcp-servers-config =PATH
--mcp-servers-json =JSON
-ag --agent ! -no-ag --no-agent
--ui --webui ! --no-ui --no-webui $LLAMA_ARG_UI
--embedding --embeddings
--rerank --reranking
--api-key =KEY $LLAMA_API_KEY
--api-key-file =FNAME
--ssl-key-file =FNAME
--ssl-cert-file =FNAME
--chat-template-kwargs =STRING
-to --timeout =N
--sse-ping-interval =N
--threads-http =N
--cache-prompt ! --no-cache-prompt
--cache-reuse =N
--metrics $LLAMA_ARG_ENDPOINT_METRICS
--props $LLAMA_ARG_ENDPOINT_PROPS
--slots ! --no-slots $LLAMA_ARG_ENDPOINT_SLOTS
--slot-save-path =PATH
--media-path =PATH
--models-dir =PATH
--models-preset =PATH
--models-max =N
--models-autoload ! --no-models-autoload
--jinja ! --no-jinja
--reasoning-format =FORMAT $LLAMA_ARG_THINK
-rea --reasoning =[on|off|auto]
--reasoning-effort =LEVEL
--reasoning-budget =N $LLAMA_ARG_THINK_BUDGET
--reasoning-budget-message =MESSAGE $LLAMA_ARG_THINK_BUDGET_MESSAGE
--reasoning-preserve ! --no-reasoning-preserve
--chat-template =JINJA_TEMPLATE
--chat-template-file =JINJA_TEMPLATE_FILE
--skip-chat-parsing ! --no-skip-chat-parsing
--prefill-assistant ! --no-prefill-assistant
-sps --slot-prompt-similarity =SIMILARITY
--lora-init-without-apply
--sleep-idle-seconds =SECONDS
--log-prompts-dir =PATH
--embd-gemma-default
--fim-qwen-1.5b-default
--fim-qwen-3b-default
--fim-qwen-7b-default
--fim-qwen-7b-spec
--fim-qwen-14b-spec
--fim-qwen-30b-default
--gpt-oss-20b-default
--gpt-oss-120b-default
--vision-gemma-4b-default
--vision-gemma-12b-default
--spec-default
)";

LlamaFlag parse_line(std::string_view line) {
  LlamaFlag flag;
  bool opposite = false;
  while (!line.empty()) {
    const auto word = line.substr(0, line.find(' '));
    line.remove_prefix(std::min(line.size(), word.size() + 1));
    if (word == "!")
      opposite = true;
    else if (word.front() == '=')
      flag.value = word.substr(1);
    else if (word.front() == '$')
      flag.variable = word.substr(1);
    else
      (opposite ? flag.opposites : flag.names).emplace_back(word);
  }
  if (flag.variable.empty()) {
    flag.variable = "LLAMA_ARG_";
    for (const char c : flag.key())
      flag.variable += c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return flag;
}

}  // namespace

const std::vector<LlamaFlag>& llama_flags() {
  static const auto flags = [] {
    std::vector<LlamaFlag> all;
    for (auto rest = table.substr(1); !rest.empty();) {
      const auto line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      if (!line.empty()) all.push_back(parse_line(line));
    }
    return all;
  }();
  return flags;
}

}  // namespace gpumod::sim
