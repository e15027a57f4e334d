# cmake -P finetune_smoke.cmake <folder of the programs> <folder>
# Trains from every form of data, goes on from a checkpoint bit for bit, and generates with the result.

cmake_minimum_required(VERSION 3.24)

# CMAKE_ARGV0 to 2 are "cmake -P <script>".
set(programs "${CMAKE_ARGV3}")
set(out "${CMAKE_ARGV4}")
file(REMOVE_RECURSE "${out}")
file(MAKE_DIRECTORY "${out}")
include("${CMAKE_CURRENT_LIST_DIR}/expect.cmake")

set(config [=[{"model_type": "llama", "vocab_size": 259, "hidden_size": 16, "intermediate_size": 24,
"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
"hidden_act": "silu", "tie_word_embeddings": false}]=])
file(WRITE "${out}/config.json" "${config}")
string(REPEAT "All work and no play makes a dull text. " 20 text)
file(WRITE "${out}/text.txt" "${text}")
string(REPEAT "{\"q\": \"2 + 2 = \", \"a\": \"4\"}\n" 6 lines)
file(WRITE "${out}/lines.jsonl" "${lines}")
string(ASCII 1 1 2 1 tokens)  # 257 and 258, as no zero can be written
string(REPEAT "${tokens}" 20 tokens)
file(WRITE "${out}/tokens.u16" "${tokens}")

foreach(program IN ITEMS finetune generate)
  expect(0 "Usage" ${program} --help)
  expect(2 "required" ${program})
endforeach()

# A run that goes on from its checkpoint of step 4 ends in the same adapter and the same log.
set(model "${out}/config.json")
set(short --length 32 --batch 3 --steps 8 --warm-up 2 --seed 5)
set(run finetune "${model}" "${out}/text.txt")
set(options ${short} --dropout 0.1 --rank 2 --run "${out}/run" --every 4 --log "${out}/log.csv"
            --evaluate "${out}/text.txt" --evaluate-every 4)
expect(0 "parameters train, 25 examples.*4,held out,5.5.*8,held out,5.5" ${run} "${out}/first" ${options})
file(READ "${out}/log.csv" log)
list(REMOVE_ITEM options --log "${out}/log.csv")
expect(1 "first: is there already; name" ${run} "${out}/first" ${options})
expect(1 "ckpt-8: is there already; go on" ${run} "${out}/second" ${options})
list(APPEND options --log "${out}/log.csv")
expect(1 "log.csv: is there already; name" ${run} "${out}/second" ${options})
file(REMOVE_RECURSE "${out}/run/ckpt-8")
expect(1 "'method': expected 'lora', found 'rotation'" ${run} "${out}/second" ${options} --method lora
       --resume)
expect(1 "'learning rate': expected '0.5', found" ${run} "${out}/second" ${options} --learning-rate 0.5
       --resume)
expect(1 "'scale': expected '2', found 'none'" ${run} "${out}/second" ${options} --scale 2 --resume)
# A log that is none, or has a row that is none, is left as it is.
foreach(case IN ITEMS "text;line 1: expected the header" "${log}x,1\n;line 10: expected a row")
  list(GET case 0 content)
  list(GET case 1 fault)
  file(WRITE "${out}/other.csv" "${content}")
  list(TRANSFORM options REPLACE "log.csv" "other.csv" OUTPUT_VARIABLE others)
  expect(1 "other.csv, ${fault}" ${run} "${out}/second" ${others} --resume)
  file(READ "${out}/other.csv" found)
  if(NOT found STREQUAL content)
    message(FATAL_ERROR "other.csv was written over:\n${found}")
  endif()
endforeach()
expect(0 "going on after step 4" ${run} "${out}/second" ${options} --resume)
file(READ "${out}/log.csv" second_log)
if(NOT second_log STREQUAL log)
  message(FATAL_ERROR "the log of the run that went on differs:\n${log}\n${second_log}")
endif()
foreach(file IN ITEMS adapter_config.json adapter_model.safetensors)
  file(SHA256 "${out}/first/${file}" first)
  file(SHA256 "${out}/second/${file}" second)
  if(NOT first STREQUAL second)
    message(FATAL_ERROR "${file} of the run that went on differs")
  endif()
endforeach()

# Every form and kind of adapter.
foreach(method IN ITEMS lora rslora asylora dora hira lokr miss full sharing random_sharing truncation
                        covering_rotation)
  set(rank --rank 2)
  if(method STREQUAL full)
    set(rank)
  endif()
  expect(0 "step 8 of 8" finetune "${model}" "${out}/lines.jsonl" "${out}/${method}" ${short} --prompt q
         --response a --method ${method} ${rank} --merged "${out}/merged_${method}")
endforeach()
expect(0 "step 8 of 8" finetune "${out}/full" "${out}/tokens.u16" "${out}/tokens" ${short} --form
       uint16 --targets q_proj,v_proj --method lora)
expect(1 "expected lora, rslora, asylora, dora, hira, lokr, miss, full, sharing, [a-z_, ]*, found loha"
       ${run} "${out}/x" --method loha --length 32)
expect(1 "--length: expected at most max_position_embeddings = 64, found 256" ${run} "${out}/x" --steps 1)
string(REPLACE "hidden_size" "hiden_size" misspelt "${config}")
file(WRITE "${out}/misspelt.json" "${misspelt}")
expect(1 "misspelt.json: expected hidden_size, found none" finetune "${out}/misspelt.json" "${out}/text.txt"
       "${out}/x")
if(EXISTS "${out}/x")
  message(FATAL_ERROR "a folder was made for nothing")
endif()
foreach(method IN ITEMS dora hira lokr)
  expect(1 "--dropout is for" ${run} "${out}/x" --method ${method} --dropout 0.1)
endforeach()
expect(1 "--merged: expected another folder" ${run} "${out}/x" ${short} --merged "${out}/./x")
file(MAKE_DIRECTORY "${out}/x")
expect(1 "--run: expected another folder" ${run} "${out}/x" ${short} --run "${out}/x/")
expect(1 "--alpha is for LoRA" ${run} "${out}/x" --alpha 2)
expect(1 "--scale is for MoRA" ${run} "${out}/x" --scale 2 --method lora)
expect(1 "--scale is for MoRA" ${run} "${out}/x" --scale 2 --method hira)
expect(1 "--alpha is for LoRA" ${run} "${out}/x" --alpha 2 --method miss)
foreach(option IN ITEMS "--rank;2" "--scale;2" "--alpha;2" "--dropout;0.1")
  list(GET option 0 name)
  expect(1 "${name} is for" ${run} "${out}/x" --method full ${option})
endforeach()
foreach(option IN ITEMS "--every;2" "--evaluate-every;2" "--prompt;q" "--response;a")
  list(GET option 0 name)
  expect(1 "${name} is for" ${run} "${out}/x" ${option})
endforeach()
expect(1 "text.txt: is there already" ${run} "${out}/x" ${short} --log "${out}/text.txt")
string(ASCII 255 byte)
expect(1 "model.*expected UTF-8" finetune "${out}/${byte}" "${out}/text.txt" "${out}/x")
expect(1 "data.*expected UTF-8" finetune "${model}" "${out}/${byte}.txt" "${out}/x" --run "${out}/r")
expect(1 "no module is named v_prj" ${run} "${out}/x" ${short} --targets q_proj,v_prj)
expect(2 "requires --run" ${run} "${out}/x" --resume)
expect(0 "no checkpoint in .*, beginning" ${run} "${out}/late" ${short} --run "${out}/none" --resume)
expect(0 "6 are cut" finetune "${model}" "${out}/lines.jsonl" "${out}/cut" --length 10 --steps 1
       --prompt q --response a)
expect(1 "tokens.u16 does not say" finetune "${model}" "${out}/tokens.u16" "${out}/x")
expect(1 "line 1.*key 'prompt'" finetune "${model}" "${out}/lines.jsonl" "${out}/x")
expect(1 "nowhere" finetune "${out}/nowhere" "${out}/text.txt" "${out}/x")

# The adapter on its base says what the merged model says.
expect(0 "[^\n]*\n" generate "${out}/full" "2 + 2 = " --most 5)
foreach(method IN ITEMS dora hira lokr miss asylora)
  expect_same_tokens("${out}/merged_${method}|1 50 50|--most|12"
                     "${model}|--adapter|${out}/${method}|--seed|5|1 50 50|--most|12")
endforeach()
expect_same_tokens("${out}/merged_lora|1 50 50|--most|12"
                   "${model}|--adapter|${out}/lora|--seed|5|1 50 50|--most|12")
expect(1 "--keep-small is for a folder" ${run} "${out}/x" --keep-small)
expect(1 "--keep-small is for a folder" generate "${model}" "a" --keep-small)
expect(1 "temperature" generate "${model}" "a" --temperature -1)
foreach(prompt IN ITEMS "a" "1 99999999999" "5 -")
  expect(1 "expected numbers of tokens, found [a9-]" generate "${model}" "${prompt}" --tokens)
endforeach()
