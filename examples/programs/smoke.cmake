# cmake -P smoke.cmake <folder of the programs> <fixtures> <folder>
# The programs about adapters: what they print and write, and their exit codes.

cmake_minimum_required(VERSION 3.24)

# CMAKE_ARGV0 to 2 are "cmake -P <script>".
set(programs "${CMAKE_ARGV3}")
set(base "${CMAKE_ARGV4}/llama_folders/untied_f16")
set(adapter "${CMAKE_ARGV4}/peft_folders/lora")
set(out "${CMAKE_ARGV5}")
file(REMOVE_RECURSE "${out}")
file(MAKE_DIRECTORY "${out}")

include("${CMAKE_CURRENT_LIST_DIR}/expect.cmake")

foreach(program IN ITEMS adapter_merge adapter_convert adapter_info)
  expect(0 "Usage" ${program} --help)
  expect(2 "required|--help" ${program})
  # The misspelt option, not the one that is missing because of it.
  expect(2 "^${program}: not known: '--nonsense'\n" ${program} x --nonsense)
endforeach()

expect(0 "q_proj,LoRA,16,16,128,[^\n]*\n.*768 parameters" adapter_info "${adapter}" --spectrum
       "${out}/values.csv")
file(STRINGS "${out}/values.csv" lines)
list(LENGTH lines count)
if(NOT count EQUAL 25)
  message(FATAL_ERROR "values.csv: expected 24 values and a header, found ${count} lines")
endif()
expect(1 "adapter_info: .*nowhere.*adapter_config.json" adapter_info "${out}/nowhere")
expect(1 "values.csv: is there already" adapter_info "${adapter}" --spectrum "${out}/values.csv")

expect(0 "names the base '[^']+', and this is 'untied_f16'.*down_proj,F16,0.84[^\n]*" adapter_merge "${base}" "${adapter}" "${out}/merged" --quiet)
expect(0 "down_proj,2,0\\.[0-9]+" adapter_convert "${adapter}" "${out}/small" --to lora --rank 2)
expect(0 "q_proj,LoRA,16,16,64," adapter_info "${out}/small" --base "${out}/merged")
expect(0 "q_proj,LoRA,16,16,64," adapter_info "${out}/small" --base "${out}/merged/config.json")
expect(1 "expected a relative error of at most 1e-08, found" adapter_merge "${base}" "${adapter}"
       "${out}/strict" --quiet --finite --most-error 1e-8)
expect(1 "merged: is there already" adapter_merge "${base}" "${adapter}" "${out}/merged")
expect(0 "modules need more than --rank 2 for --error 0.001" adapter_convert "${adapter}" "${out}/bounds" --to lora
       --rank 2 --error 0.001)
file(REMOVE_RECURSE "${out}/bounds")
expect(1 "--to gguf needs --base" adapter_convert "${adapter}" "${out}/x.gguf" --to gguf)
expect(0 "down_proj,4,0" adapter_convert "${adapter}" "${out}/x.gguf" --to gguf --base "${base}")
expect(1 "small: is there already" adapter_convert "${adapter}" "${out}/small" --to lora)
set(tied "${CMAKE_ARGV4}/llama_folders/tied_bf16_shards")
expect(0 "rank" adapter_convert "${CMAKE_ARGV4}/peft_folders/tied_embedding" "${out}/tied" --to lora --base
       "${tied}")
expect(0 "embed_tokens,whole" adapter_info "${out}/tied" --base "${tied}")
file(REMOVE_RECURSE "${out}/tied")
# A shard that is a link, as in Hugging Face's cache.
file(MAKE_DIRECTORY "${out}/linked")
file(COPY "${base}/config.json" DESTINATION "${out}/linked")
file(CREATE_LINK "${base}/model.safetensors" "${out}/linked/model-1.safetensors" SYMBOLIC)
file(STRINGS "${base}/model.safetensors" header LIMIT_COUNT 1 REGEX "lm_head")
string(REGEX MATCHALL "\"[a-z_.0-9]+\\.weight\"" tensors "${header}")
list(TRANSFORM tensors APPEND ":\"model-1.safetensors\"")
list(JOIN tensors "," tensors)
file(WRITE "${out}/linked/model.safetensors.index.json" "{\"weight_map\":{${tensors}}}")
set(dora "${CMAKE_ARGV4}/peft_folders/dora")
set(refused "found a link to .*--links of the programs")
expect(1 "${refused}" adapter_merge "${out}/linked" "${adapter}" "${out}/y")
expect(1 "${refused}" adapter_info "${dora}" --base "${out}/linked")
expect(0 "q_proj,DoRA,16,16,[0-9]+,[0-9.]+," adapter_info "${dora}" --base "${out}/linked" --links)
expect(1 "${refused}" adapter_convert "${dora}" "${out}/y" --to lora --base "${out}/linked")
expect(0 "q_proj,16," adapter_convert "${dora}" "${out}/y" --to lora --base "${out}/linked" --links)
file(REMOVE_RECURSE "${out}/y")
file(MAKE_DIRECTORY "${out}/y.tmp-999999999-0")
expect(0 "y.tmp-999999999-0: left by a process that ended" adapter_merge "${out}/linked" "${adapter}" "${out}/y"
       --links)
file(REMOVE_RECURSE "${out}/y" "${out}/y.tmp-999999999-0" "${out}/linked")
expect(1 "--links is for --base" adapter_info "${adapter}" --links)
expect(1 "--links is for DoRA and HiRA" adapter_info "${adapter}" --base "${out}/linked" --links)
expect(1 "--links is for DoRA and HiRA" adapter_convert "${adapter}" "${out}/y" --to lora --base "${out}/linked"
       --links)
expect(1 "relative_error" adapter_convert "${adapter}" "${out}/y" --to lora --error 2)
expect(1 "--to: .*found pytorch" adapter_convert "${adapter}" "${out}/y" --to pytorch)
expect(0 "down_proj,2,0\\.[0-9]+" adapter_convert "${adapter}" "${out}/sharing" --to sharing --rank 2
       --base "${base}")
expect(0 "q_proj,MoRA[^\n]*,16,16,64," adapter_info "${out}/sharing" --base "${base}")
expect(0 "without --base there are no norms" adapter_info "${CMAKE_ARGV4}/peft_folders/dora")
# DoRA and HiRA, whose updates depend on the weights: as LoRA they say the same on the same base.
foreach(method IN ITEMS dora hira)
  set(kind "${CMAKE_ARGV4}/peft_folders/${method}")
  expect(0 "q_proj,[DH][oi]RA,16,16,[0-9]+,[0-9.]+,[0-9.]+,1?[0-9]," adapter_info "${kind}" --base "${base}")
  expect(1 "pass --base" adapter_convert "${kind}" "${out}/y" --to lora)
  expect(0 "q_proj,16,0\n" adapter_convert "${kind}" "${out}/${method}" --to lora --base "${base}")
  expect_same_tokens("${base}|--adapter|${kind}|1 2 3|--most|12"
                     "${base}|--adapter|${out}/${method}|1 2 3|--most|12")
  file(REMOVE_RECURSE "${out}/${method}")
endforeach()
expect(1 "--seed is for random_sharing" adapter_convert "${adapter}" "${out}/y" --to rotation
       --seed 1)
expect(1 "--error is for" adapter_convert "${adapter}" "${out}/y" --to rotation --error 0.1)
file(GLOB found RELATIVE "${out}" "${out}/*")
list(SORT found)
if(NOT found STREQUAL "merged;sharing;small;values.csv;x.gguf")
  message(FATAL_ERROR "expected merged, sharing, small, values.csv and x.gguf, found ${found}")
endif()

# Sizes from the tensors alone, whatever their names; what a terminal or a reader of CSV would obey is not
# printed. A tied head and a bias stay what they are.
set(odd "${CMAKE_ARGV4}/odd_adapter")
set(lines "a.\\\\x1b\\[31mred,LoRA,2,2,4,[^\n]*\n\"a.b,\"\"c\"\"\",LoRA,2,2,4,[^\n]*\na.q,LoRA,5,4,9,")
expect(0 "${lines}[^\n]*\nq,LoRA,3,2,5,[^\n]*\nwhole,whole,2,3,9," adapter_info "${odd}" --spectrum
       "${out}/odd.csv")
file(READ "${out}/odd.csv" text)
if(NOT text MATCHES "\"a.b,\"\"c\"\"\",0,")
  message(FATAL_ERROR "odd.csv: expected quoted names, found:\n${text}")
endif()
expect(0 "\na.\\\\x1b\\[31mred,1,[^\n]*\n\"a.b,\"\"c\"\"\",1," adapter_convert "${odd}" "${out}/plain" --to
       lora)
expect(0 "whole,whole,2,3,9," adapter_info "${out}/plain")
expect(1 "'a.\\\\x1b" adapter_merge "${base}" "${odd}" "${out}/z")
set(tied_embedding "${CMAKE_ARGV4}/peft_folders/tied_embedding")
expect(0 "embed_tokens,whole" adapter_info "${tied_embedding}")
expect(0 "rank" adapter_convert "${tied_embedding}" "${out}/tied" --to lora)
expect(0 "embed_tokens,whole" adapter_info "${out}/tied" --base "${tied}")
expect(1 "pass --base" adapter_info "${out}/sharing")

foreach(option IN ITEMS "--transposed" "--top-p;0.5" "--seed;3")
  list(GET option 0 name)
  expect(1 "${name} is for" generate "${base}" "1 2" --tokens ${option})
endforeach()
expect(1 "--stop: expected 0 to 31, found 32" generate "${base}" "1 2" --tokens --stop 32)
file(WRITE "${out}/wide.json" [[{"model_type": "llama", "vocab_size": 4000, "hidden_size": 8, "intermediate_size": 8,
 "num_hidden_layers": 1, "num_attention_heads": 1}]])
expect(1 "give the numbers of tokens.*expected 0 to 258, found" generate "${out}/wide.json" "ab" --most 8)
file(COPY "${base}/" DESTINATION "${out}/end")
file(READ "${out}/end/config.json" config)
string(REGEX REPLACE "\"eos_token_id\": [0-9]+" "\"eos_token_id\": 4294967297" config "${config}")
file(WRITE "${out}/end/config.json" "${config}")
expect(0 "eos_token_id: expected less than vocab_size = 32, found 4294967297" generate "${out}/end" "1 2"
       --tokens --most 2)

# Weights that stay in 16 bits say the same.
expect_same_tokens("${base}|1 2 3|--most|6" "${base}|1 2 3|--most|6|--keep-small")
