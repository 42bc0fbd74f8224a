"""What errors say, in Chinese, by the English sentence that they were raised with (:class:`hpo.errors.Said`).

A sentence that is not here is said in English; tests/test_language.py holds that all of hpo's are.
"""

from __future__ import annotations

from types import MappingProxyType

_FORMS = {
    "{part0} or {part1}": "{part0} 或 {part1}",
    "interrupted; to go on, type: hpo {words}": "已中断；要继续，请输入：hpo {words}",
    "cannot write: {reason}": "无法写入：{reason}",
    "room on the disk": "磁盘上有空间",
    "free some first": "请先腾出空间",
    "what was under way has been given back": "进行中的工作已交还",
    "{part0}; {part1}": "{part0}；{part1}",
    "{part0}; {part1}; {part2}": "{part0}；{part1}；{part2}",
    "expected {expected}": "应为：{expected}",
    "expected one of {names}": "应为以下之一：{names}",
    "did you mean {near}?": "是否指 {near}？",
    "; did you mean {near}?": "；是否指 {near}？",
    "{low} to {high}": "{low} 至 {high}",
    "{key}: {here} here, {there} there": "{key}：此处 {here}，彼处 {there}",
    "{said}; expected one of {values}": "{said}；应为以下之一：{values}",
    "one of {names}": "以下之一：{names}",
    "one of {names}{nearest}": "以下之一：{names}{nearest}",
    "nothing": "空",
    "none": "无",
    "one": "一个",
    "all": "全部",
    "one of them": "其中之一",
    "none of them": "一个也没有",
    "one or more": "一个或多个",
    "see above": "见上文",
    "at least {n}": "至少 {n}",
    "at least 1": "至少为 1",
    "at least 4": "至少 4 次",
    "it installed": "已安装该软件包",
}
_DONE = {
    "line {line}: {did}, trial {number}: {text}": "第 {line} 行：{did}，第 {number} 号试验：{text}",
    "imported": "已导入",
    "to try": "待试",
    "already there": "已经存在",
    "validation {metric} {value}": "验证 {metric} {value}",
    "no validation {metric}": "没有验证 {metric}",
    "validated on another split": "在另一种划分上验证",
    "only test metrics, which choose nothing here": "只有测试指标，在此不用于选择",
    "no metric": "没有指标",
    " (kept as test figures: {figures})": "（作为测试数值保留：{figures}）",
    "{named}: taken as test figures; a validation figure is called validation_{first}": (
        "{named}：视为测试数值；验证数值的列名为 validation_{first}"
    ),
    "passed over, for they mean nothing here: {names}": "已略过，在此没有意义：{names}",
    "{study}: {imported} imported, {to_try} to try, {already} already there": (
        "{study}：已导入 {imported}，待试 {to_try}，已经存在 {already}"
    ),
    "imported trials count in the study's total and are marked wherever they show": (
        "导入的试验计入研究的总数，并在各处注明"
    ),
    "deleted: {words}": "已删除：{words}",
    "{study} is {to} now; next: hpo status {to}{option}": (
        "{study} 现名 {to}；下一步：hpo status {to}{option}"
    ),
    "copied to {to}: {words}; next: hpo status {study}{option}": "已复制到 {to}：{words}；下一步："
    "hpo status {study}{option}",
    "open": "开放",
    "paused": "已暂停",
    "stopped": "已停止",
    "{study} was {was} and is {now}{again}": "{study} 原为{was}，现为{now}{again}",
    "; to go on: {command}": "；要继续：{command}",
    "next: hpo worker --storage {url}   (on each machine; several are fine)": (
        "下一步：hpo worker --storage {url}   （在每台机器上；可以有多个）"
    ),
    "1 worker is attached; next: {command}": "有 1 个工作进程；下一步：{command}",
    "{n} workers are attached; next: {command}": "有 {n} 个工作进程；下一步：{command}",
    ", {n} failed for good": "，{n} 次彻底失败",
    "{study} [partial: {part}]": "{study} [部分数据：{part}]",
    "{label}: {finished} of {total} trials are finished{failed}; priority {priority}": (
        "{label}：{total} 次试验中已结束 {finished} 次{failed}；优先级 {priority}"
    ),
}
_ALERTS = {
    "https://ADDRESS (a webhook), exec:COMMAND, or an address of apprise such as mailto://...": (
        "https://地址（webhook）、exec:命令，或 apprise 的地址，例如 mailto://..."
    ),
    "exec: without a command": "exec: 后面没有命令",
    "exec:COMMAND": "exec:命令",
    "type: --alert 'exec:COMMAND'": "请输入：--alert 'exec:命令'",
    "one of its documentation": "其文档中列出的地址",
    "cannot alert {word!r}": "无法通知 {word!r}",
    "an address with a host": "带主机名的地址",
    "words as a shell has them": "shell 能读懂的词",
    "type: pip install 'hpo[apprise]'": "请输入：pip install 'hpo[apprise]'",
    "apprise cannot read the address {scheme}://...": "apprise 无法识别地址 {scheme}://...",
    "cannot read the command {command!r} ({error})": "无法解析命令 {command!r}（{error}）",
    "an alert by {scheme}:// needs the package apprise": "通过 {scheme}:// 通知需要软件包 apprise",
    "nobody is named to be told": "没有指定要通知的对象",
    "type: hpo alert --alert TARGET": "请输入：hpo alert --alert 对象",
    "a test did not arrive: {error}": "测试通知没有送达：{error}",
}
_CHECKPOINTS = {
    "the study is copied, but not its checkpoints to {new!r} ({reason})": "研究已复制，但检查点没能"
    "复制到 {new!r}（{reason}）",
    "type: cp -r {folder} {new}": "请输入：cp -r {folder} {new}",
    "an address without a password or a query: it stands in logs and in the database": "不含密码和查询"
    "参数的地址：它会写入日志和数据库",
    "give keys as the store's own tools take them, such as AWS_ACCESS_KEY_ID": "请按该存储自带工具"
    "的方式提供密钥，例如 AWS_ACCESS_KEY_ID",
    "an address such as s3://bucket/folder": "形如 s3://bucket/folder 的地址",
    "HPO_CHECKPOINTS has more than a place in it ({scheme}://...)": "HPO_CHECKPOINTS 含有位置以外的"
    "内容（{scheme}://...）",
    "HPO_CHECKPOINTS is {address!r}": "HPO_CHECKPOINTS 为 {address!r}",
    "HPO_CHECKPOINTS begins with {scheme}://, and what speaks to such a store is not installed": "HPO_CHECK"
    "POINTS 以 {scheme}:// 开头，但没有安装访问这种存储的软件包",
    "HPO_CHECKPOINTS begins with {scheme}://, which fsspec does not know": "HPO_CHECKPOINTS 以 "
    "{scheme}:// 开头，fsspec 不认识它",
    "s3://bucket/folder, file:///folder or a folder": "s3://bucket/folder、file:///folder 或文件夹",
    "type: pip install '{package}'": "请输入：pip install '{package}'",
    "a place for checkpoints that is there, and that this machine may write to": "存在且本机可写的检查点位置",
    "look at HPO_CHECKPOINTS, and at the keys of the store": "请检查 HPO_CHECKPOINTS 和存储的密钥",
    "{address} cannot be used ({reason})": "无法使用 {address}（{reason}）",
    "a folder, or an object store in HPO_CHECKPOINTS, that all workers share": "所有 worker 共用的"
    "文件夹，或 HPO_CHECKPOINTS 中的对象存储",
}
_COMMANDS = {
    "a .pdf, .svg or .png file": ".pdf、.svg 或 .png 文件",
    "type: --out figure.pdf": "请输入：--out figure.pdf",
    "type: hpo figure ratio NAME": "请输入：hpo figure ratio 名称",
    "screen or paper": "screen 或 paper",
    "use --style paper": "请用 --style paper",
    "--out is {file!r}": "--out 为 {file!r}",
    "no figure {name!r}": "没有名为 {name!r} 的图",
    "no style {given!r}": "没有样式 {given!r}",
    "cannot write {file!r} ({strerror})": "无法写入 {file!r}（{strerror}）",
    "a place that can be written": "可写的位置",
    "use --out FILE": "请用 --out 文件",
    "use --out": "请用 --out",
    "use --out DIR": "请用 --out 文件夹",
    "{study} with {n} finished trials": "{study} 及其 {n} 次已完成的试验",
    "the runs of {n} confirmations": "{n} 次确认的运行",
    "the record of {n} looks at the test split": "{n} 次查看测试集的记录",
    "this would delete {words} for good": "这将永久删除 {words}",
    "a word that you mean it": "一个表明确实如此的选项",
    "type: hpo delete {study} --yes{option}": "请输入：hpo delete {study} --yes{option}",
    "a study and --all are named": "同时给出了研究和 --all",
    "type: hpo report --all": "请输入：hpo report --all",
    "{n_failed} of {n_specs} studies were not run: {failed}": "{n_specs} 个研究中有 {n_failed} 个没"
    "有运行：{failed}",
    "the reasons are above": "原因见上文",
    "{name} is not ready: {faults}": "{name} 还不能开始：{faults}",
    "en or zh": "en 或 zh",
    "use --lang en or --lang zh": "请用 --lang en 或 --lang zh",
    "no language {given!r}": "没有语言 {given!r}",
    "no study is named": "没有指定研究",
    "two studies are named, {first!r} and {second!r}": "指定了两个研究：{first!r} 和 {second!r}",
    "type: hpo {command} NAME; hpo studies lists them": "请输入：hpo {command} 名称；hpo studies 会"
    "列出所有研究",
    "one that holds a study": "含有研究的数据库",
    "type: hpo submit --study NAME, or name another with --storage": "请输入：hpo submit --study 名"
    "称，或用 --storage 指定另一个",
    "there is no database {url}": "没有数据库 {url}",
    "no format {to!r}": "没有格式 {to!r}",
    "use --to csv": "请用 --to csv",
    "type: pip install 'hpo[{to}]'": "请输入：pip install 'hpo[{to}]'",
    "--to {to} needs the package {to}": "--to {to} 需要软件包 {to}",
    "no record {to!r} while a search runs": "搜索运行时不能写 {to!r} 记录",
    "use --log-to tensorboard": "请用 --log-to tensorboard",
    "use --log-dir": "请用 --log-dir",
    "--log-to {to} needs the package {to}": "--log-to {to} 需要软件包 {to}",
    "cannot write to {out!r} ({reason})": "无法写入 {out!r}（{reason}）",
    "a folder to write to": "可写入的文件夹",
    "a folder": "文件夹",
    "a folder that can be written": "可写的文件夹",
    "cannot write the report to {out!r} ({strerror})": "无法将报告写入 {out!r}（{strerror}）",
    "--as {as_name} names {n_names} studies": "--as {as_name} 对应 {n_names} 个研究",
    "one study": "一个研究",
    "--known-within is {known_within:g}": "--known-within 为 {known_within:g}",
    "a factor above 1": "大于 1 的倍数",
    "type: --known-within 1.5": "请输入：--known-within 1.5",
    "{option} is {name!r}": "{option} 为 {name!r}",
    "up to {longest_name} letters, digits, _, . and -, the first a letter or a digit": "至多 "
    "{longest_name} 个字母、数字、_、. 和 -，第一个为字母或数字",
    "unknown device {device!r}": "未知设备 {device!r}",
    "cpu, cuda, cuda:N or auto": "cpu、cuda、cuda:N 或 auto",
    "type: --device auto": "请输入：--device auto",
    "there is no home folder for the prepared windows (HOME is not set)": "没有主目录可存放准备好的"
    "窗口（未设置 HOME）",
    "type: --cache DIR, or set HPO_CACHE": "请输入：--cache 文件夹，或设置 HPO_CACHE",
    "--slots is {text!r}": "--slots 为 {text!r}",
    "type: --slots auto": "请输入：--slots auto",
    "a whole number of at least 1, graph or auto": "不小于 1 的整数、graph 或 auto",
    "a whole number of at least 1": "不小于 1 的整数",
    "{name} is {text!r}": "{name} 为 {text!r}",
    "a time with its unit, such as 90s, 30m or 2h": "带单位的时间，例如 90s、30m 或 2h",
    "type: {name}{sign}{meant}": "请输入：{name}{sign}{meant}",
    "{option} is {value}": "{option} 为 {value}",
    "type: {option} 2": "请输入：{option} 2",
    "{there} is there already": "{there} 已经存在",
    "a folder without it": "没有它的文件夹",
    "type: hpo init ANOTHER_DIR": "请输入：hpo init 另一个文件夹",
    "cannot write to {folder} ({strerror})": "无法写入 {folder}（{strerror}）",
    "HPO_ALIVE is {file!r}, which cannot be made ({strerror})": "HPO_ALIVE 为 {file!r}，无法创建该"
    "文件（{strerror}）",
    "a file in a folder that can be written": "可写文件夹中的文件",
    "workers is {workers}": "workers 为 {workers}",
    "type: --device {value}": "请输入：--device {value}",
    "a GPU that CUDA finds": "CUDA 能找到的 GPU",
    "cuda:0 to cuda:{count}": "cuda:0 至 cuda:{count}",
    "the device {device} is not there": "没有设备 {device}",
    "an SQLite file serves the workers of one machine": "SQLite 文件只能供一台机器的 worker 使用",
    "a PostgreSQL database": "PostgreSQL 数据库",
    "name it with --storage": "请用 --storage 指定",
    "sbatch is not here": "这里没有 sbatch",
    "a login node of a Slurm cluster": "Slurm 集群的登录节点",
    "type: hpo run, without Slurm": "请输入：hpo run，不用 Slurm",
    "submitit is not installed": "没有安装 submitit",
    "hpo with Slurm": "带 Slurm 的 hpo",
    "type: pip install 'hpo[slurm]'": "请输入：pip install 'hpo[slurm]'",
}
_DASHBOARD = {
    "a number up to 65535 (0: any that is free)": "不大于 65535 的数（0：任一空闲端口）",
    "--behind-tls without --allowed-host": "有 --behind-tls 却没有 --allowed-host",
    "the name by which the proxy is asked": "访问代理所用的主机名",
    "--port is {port}": "--port 为 {port}",
    "make one: openssl rand -hex 24": "生成一个：openssl rand -hex 24",
    "HPO_DASHBOARD_TOKEN has {n} characters": "HPO_DASHBOARD_TOKEN 有 {n} 个字符",
    "HPO_DASHBOARD_TOKEN has blanks or signs that a header cannot hold": "HPO_DASHBOARD_TOKEN 含有"
    "空格或请求头不能包含的字符",
    "letters, digits and signs of ASCII": "ASCII 字母、数字和符号",
    "HPO_DASHBOARD_TOKEN repeats a few signs or counts": "HPO_DASHBOARD_TOKEN 只重复少数字符，或是连续的序列",
    "HPO_DASHBOARD_TOKEN holds a word that is tried among the first": "HPO_DASHBOARD_TOKEN 含有最先"
    "会被猜到的词",
    "random characters": "随机字符",
    "cannot read HPO_DASHBOARD_TOKEN_FILE, {file!r} ({strerror})": "无法读取 "
    "HPO_DASHBOARD_TOKEN_FILE {file!r}（{strerror}）",
    "a file with the token": "含有令牌的文件",
    "cannot listen on {host} port {port} ({error})": "无法监听 {host} 端口 {port}（{error}）",
    "an address of this machine": "本机的地址",
    "take another: --port 0 takes any that is free": "请换一个：--port 0 使用任一空闲端口",
}
_CONFIRMATION = {
    "the study {name!r} was searched with another spec ({changes})": "研究 {name!r} 是用另一份设定"
    "搜索的（{changes}）",
    "the spec of the search": "搜索时的设定",
    "undo the change, or search again under another name": "请撤销改动，或换一个名称重新搜索",
    "{name!r} is a {kind}, not a search": "{name!r} 的类型是 {kind}，不是搜索",
    "a study that hpo run has made": "由 hpo run 创建的研究",
    "{name} is still running ({running} trials under way, {finished} finished)": "{name} 仍在运行（"
    "{running} 次试验进行中，{finished} 次已完成）",
    "a study at rest, so that the choice is final": "已停止的研究，这样选择才是最终的",
    "wait until hpo status --study {name} shows none running, or interrupt it": "请等到 hpo status "
    "--study {name} 显示没有试验在运行，或中断它",
    "{n_overlap} confirmation seeds, such as {overlap}, belong to the search": "有 {n_overlap} 个确"
    "认种子（例如 {overlap}）属于搜索",
    "fresh seeds": "新的种子",
    "type: --first-seed {first_confirmation_seed}": "请输入：--first-seed {first_confirmation_seed}",
    "{name} has {complete} complete trials: too few to choose from": "{name} 只有 {complete} 次完整"
    "试验：太少，无法选择",
    "{name} has {complete} complete trials: too few for an answer": "{name} 只有 {complete} 次完整"
    "试验：太少，没有答案",
    "type: hpo run --study {name}": "请输入：hpo run --study {name}",
    "{study}: not confirmed yet": "{study}：尚未确认",
    "type: hpo confirm --study {study}": "请输入：hpo confirm --study {study}",
    "type the command on the machine that ran it": "请在运行它的机器上输入该命令",
    "the weights {stored} of a confirmation run are not on this machine": "确认运行的权重 {stored} 不在本机",
    "{name}: {finished} of {total} runs are finished": "{name}：{total} 次运行中完成了 {finished} 次",
    "all of them before the test split is opened": "全部完成后才打开测试集",
    "type the same command again": "请再次输入同一命令",
    "the chosen configuration diverged": "所选配置发散了",
    "a finite loss": "有限的损失",
    "type: hpo run with more trials": "请用更多试验运行 hpo run",
}
_DIARY = {
    "--separator is {separator!r}": "--separator 为 {separator!r}",
    "one sign, such as ';' or tab": "一个字符，例如 ';' 或 tab",
    "type: --separator ';'": "请输入：--separator ';'",
    "cannot read {file!r} ({reason})": "无法读取 {file!r}（{reason}）",
    "it is not UTF-8": "不是 UTF-8 编码",
    "a CSV file of runs": "记录运行的 CSV 文件",
    "semicolons": "分号",
    "tabs": "制表符",
    "no row; expected a run a line": "没有数据行；应为每行一次运行",
    "fields are parted by {separator}; type: --separator {typed}": "字段以{separator}分隔；请输入："
    "--separator {typed}",
    "column {name} is missing; expected it among {header}": "缺少列 {name}；现有的列：{header}",
    "column backbone_lr is missing; expected it, or ratio": "缺少列 backbone_lr；应有此列或 ratio",
    "column {name} is there {count} times; expected once": "列 {name} 出现了 {count} 次；应只出现一次",
    "column {name} does not say which loss; expected validation_{yardstick}": "列 {name} 没有说明是"
    "哪种损失；应为 validation_{yardstick}",
    "column {name}: {cell}; expected one of {listed}": "列 {name}：{cell}；应为以下之一：{listed}",
    "{error}; expected a table, its fields parted by {separator!r}": "{error}；应为以 "
    "{separator!r} 分隔的表格",
    "{n_fields} cells; expected {n_header}, as in the header{hint}": "{n_fields} 个单元格；应与表头"
    "一样为 {n_header} 个{hint}",
    " (are there decimal commas?)": "（是否用了逗号作小数点？）",
    "{split} mae {mae:g} with rmse {rmse:g}; expected rmse at least as large": "{split} 的 mae "
    "{mae:g} 与 rmse {rmse:g} 矛盾；rmse 应不小于 mae",
    "column {column}: {value:g}; expected {low:g} or more{why}": "列 {column}：{value:g}；应不小于 "
    "{low:g}{why}",
    "column {column}: {value:g}; expected {high:g} or less{why}": "列 {column}：{value:g}；应不大于"
    " {high:g}{why}",
    " (has its sign been turned?)": "（符号是否颠倒了？）",
    " (is it in percent?)": "（是否以百分比表示？）",
    "column {column}: {cell}; expected a number": "列 {column}：{cell}；应为数字",
    "column {column}: {name} {value:g} is outside the study's space; expected {low:g} to {high:g}": "列 "
    "{column}：{name} {value:g} 超出研究的搜索空间；应为 {low:g} 至 {high:g}",
    "column loss: {loss}; expected one of {known}{near}": "列 loss：{loss}；应为以下之一：{known}{near}",
    "column seed: {cell}; expected a whole number from {low} to {high} (seeds beyond are kept for "
    "confirmation){hint}": "列 seed：{cell}；应为 {low} 至 {high} 的整数（更大的种子留给确认）{hint}",
    "; --seed names one for all rows": "；--seed 为所有行指定一个种子",
}
_DATABASE = {
    "the database has no study {name!r}": "数据库中没有研究 {name!r}",
    "one of its studies: {names}{nearest}": "其中的研究之一：{names}{nearest}",
    "type: hpo studies": "请输入：hpo studies",
    "study {name!r} in the database is another one ({differing})": "数据库中的研究 {name!r} 与此不"
    "同（{differing}）",
    "the same spec, data and versions": "相同的设定、数据和版本",
    "another command has begun the study {name!r} anew, with another spec": (
        "另一条命令已用不同的设定重新开始了研究 {name!r}"
    ),
    "one spec for a name": "一个名称对应一种设定",
    "type the same command with --as {name}-2": "请在同一命令后加上 --as {name}-2",
    "it is {value}; expected a number": "其值为 {value}；应为数字",
    "ratio {told:g}; expected {ratio:g}, as the two rates have it": (
        "ratio 为 {told:g}；应为 {ratio:g}，即两个学习率之比"
    ),
    "a free name": "未被占用的名称",
    "give the study another name, or take another --storage": "请给研究换一个名称，或换一个 --storage",
    "type the same command with {anew}, or take another --storage": "请在同一命令后加上 {anew}，或"
    "换一个 --storage",
    "type: hpo run --study {name} {anew}": "请输入：hpo run --study {name} {anew}",
    "the database holds a study {name!r} that was not made here": "数据库中已有不是由本程序创建的研"
    "究 {name!r}",
    "of study {name!r} the database does not hold what its data are": "数据库没有记录研究 {name!r} "
    "的数据是什么",
    "a study as this program writes it": "由本程序写入的研究",
    "copy it anew from where it was made": "请从创建它的地方重新复制",
    "workers run 1 trial of {name!r}": "有 worker 正在运行 {name!r} 的试验",
    "workers run {at_work} trials of {name!r}": "有 worker 正在运行 {name!r} 的 {at_work} 次试验",
    "a study that nobody runs": "无人运行的研究",
    "type: hpo stop --study {name}   (and again in a moment)": "请输入：hpo stop --study {name}   "
    "（稍后再试）",
    "there is a study {name!r} already": "已有研究 {name!r}",
    "take another name": "请换一个名称",
    "{there} of {here} rows of {name} arrived": "{name} 的 {here} 行中只到达了 {there} 行",
    "type it again": "请再次输入",
    "no study in the database": "数据库中没有研究",
    "type: hpo run --study synthetic_rr": "请输入：hpo run --study synthetic_rr",
    "study {name!r} has no complete trial with {wanted}": "研究 {name!r} 没有符合 {wanted} 的完整试验",
    "a loss of {losses}{others}": "损失 {losses}{others}",
    " and {name} of {values}": "、{name} 为 {values}",
    "a study to start from": "可以作为起点的研究",
    "leave out --warm-start, or take another study": "请去掉 --warm-start，或换一个研究",
    "the study {name!r} was deleted with another tool while it was searched": "研究 {name!r} 在搜索"
    "时被其他工具删除了",
    "a study that stays": "不会被删除的研究",
    "type the same command to begin it anew": "请再次输入同一命令，重新开始",
    "the same code and data on every worker": "所有 worker 上的代码和数据都相同",
    "study {name!r} was made with something else: {wrong}": "研究 {name!r} 是用别的代码或数据创建的：{wrong}",
    "use the versions of the study, or type: hpo run --study {name} --as {name}-2 --warm-start {name}": ""
    "请使用该研究的版本，或输入：hpo run --study {name} --as {name}-2 --warm-start {name}",
    "study {name!r} is {state}": "研究 {name!r} 的状态是 {state}",
    "an open study": "进行中的研究",
    "to go on, type: hpo resume --study {name}": "要继续，请输入：hpo resume --study {name}",
    "study {name!r} was made by another version of this program ({reasons})": "研究 {name!r} 是由本"
    "程序的另一个版本创建的（{reasons}）",
    "a study that this version knows": "此版本认识的研究",
    "use the version that made it": "请使用创建它的版本",
    "a file and a folder that can be written": "可写的文件和文件夹",
    "%40 for each @ of a user or a password": "用户名或密码中的每个 @ 写作 %40",
    "a {kind} database is not supported": "不支持 {kind} 数据库",
    "a URL such as {examples}": "形如 {examples} 的 URL",
    "a PostgreSQL that can be reached": "可以连接的 PostgreSQL",
    "a database, or a name that is free": "数据库，或未被占用的名称",
    "cannot use the database {file!r}: {reason}": "无法使用数据库 {file!r}：{reason}",
    "cannot use the database {shown}: {reason}": "无法使用数据库 {shown}：{reason}",
    "the database URL {url!r} has more than one @": "数据库 URL {url!r} 中有多个 @",
    "an in-memory database cannot be shared": "内存数据库无法共享",
    "a file, such as sqlite:///hpo.db": "文件，例如 sqlite:///hpo.db",
    "{file!r} is not an SQLite database": "{file!r} 不是 SQLite 数据库",
    "{url!r} is no database URL": "{url!r} 不是数据库 URL",
    "a file such as hpo.db, or a URL such as {examples}": "形如 hpo.db 的文件，或形如 {examples} 的 URL",
    "cannot read HPO_STORAGE_PASSWORD_FILE, {file!r} ({strerror})": "无法读取 "
    "HPO_STORAGE_PASSWORD_FILE {file!r}（{strerror}）",
    "a file with the password": "含有密码的文件",
    "the name of the database is none that a file can have": "文件不能使用这样的数据库名",
    "a shorter name, in letters": "由字母组成的较短名称",
    "the folder {parent!r} does not exist": "文件夹 {parent!r} 不存在",
    "an existing folder for the database": "存放数据库的现有文件夹",
    "type: mkdir -p {parent}": "请输入：mkdir -p {parent}",
    "there is no database {file!r}": "没有数据库 {file!r}",
    "the database of a search": "某次搜索的数据库",
    "type: hpo run NAME to begin one, or name another with --storage": "请输入：hpo run 名称 来开始"
    "搜索，或用 --storage 指定另一个",
    "the database {file!r} has a log that was not closed, and can only be read here": "数据库 "
    "{file!r} 有未关闭的日志，在这里只能读取",
    "the database {file!r} can only be read here": "数据库 {file!r} 在这里只能读取",
    "hpo status and hpo report read it": "hpo status 和 hpo report 可以读取它",
    "type: cp {file}* FOLDER   (and name the copy)": "请输入：cp {file}* 文件夹   （并指定副本）",
    "cannot read the database {file!r}: {error}": "无法读取数据库 {file!r}：{error}",
    "one that can be read": "可以读取的数据库",
    "a folder on a disk of this machine": "本机磁盘上的文件夹",
    "for several machines use PostgreSQL: --storage postgresql://user@host/database": "多台机器请用 "
    "PostgreSQL：--storage postgresql://user@host/database",
    "{folder!r} is on a network file system ({kind}), where SQLite loses data": "{folder!r} 在网络"
    "文件系统（{kind}）上，SQLite 在那里会丢失数据",
    "a PostgreSQL that has the database and lets us in": "含有该数据库并允许连接的 PostgreSQL",
    "look at --storage": "请检查 --storage",
    "the database cannot be used: {reason}": "无法使用数据库：{reason}",
    "the database": "数据库",
    "the store of the checkpoints": "检查点的存储",
    "{subject} could not be used for {waited_s:.0f} s ({reason})": "{subject}已有 {waited_s:.0f} s "
    "无法使用（{reason}）",
    "one that can be reached and written": "可以连接并写入的",
    "type the same command again when it is back: nothing is lost": "恢复后请再次输入同一命令：什么"
    "也没有丢失",
    "the database holds no study of this program": "数据库中没有本程序的研究",
    "one that a search has used": "搜索用过的数据库",
    "type: hpo run": "请输入：hpo run",
    "the database was made by an older version, and can only be read here, not brought up to date": "数据库由"
    "旧版本创建，在这里只能读取，无法升级",
    "copy it to such a folder, and name the copy": "请复制到这样的文件夹，并指定副本",
    "a new database, or one of this program or of Optuna": "新的数据库，或本程序或 Optuna 的数据库",
    "take another --storage": "请换一个 --storage",
    "update this program, or take another --storage": "请升级本程序，或换一个 --storage",
    "the database has tables of another program ({theirs})": "数据库中有其他程序的表（{theirs}）",
    "the database has schema {ours} of a newer version of this program": "数据库的结构 {ours} 属于"
    "本程序的更新版本",
    "schema {revision} or older": "结构 {revision} 或更旧",
    "the database has Optuna's schema {theirs} of a newer Optuna": "数据库的 Optuna 结构 {theirs} "
    "属于更新的 Optuna",
    "Optuna's schema {optuna_revision}": "Optuna 结构 {optuna_revision}",
    "the database was made by another version of Optuna": "数据库由另一个版本的 Optuna 创建",
    "type: optuna storage upgrade --storage URL": "请输入：optuna storage upgrade --storage URL",
    "the database {file!r} {what} while it was in use": "数据库 {file!r} 在使用中{what}",
    "was replaced by another file": "被另一个文件替换了",
    "is gone": "不见了",
    "the file that was opened": "打开时的那个文件",
    "put it back, or type the command again for a new search": "请放回原处，或再次输入命令开始新的搜索",
}
_STUDY_FILE = {
    "unknown study {name!r}": "未知的研究 {name!r}",
    "a YAML file or one of {names}{nearest}": "YAML 文件，或以下之一：{names}{nearest}",
    "not a text file in UTF-8": "不是 UTF-8 文本文件",
    "a study in YAML": "YAML 格式的研究",
    "cannot read the study {file!r} ({strerror})": "无法读取研究 {file!r}（{strerror}）",
    "a readable YAML file": "可读的 YAML 文件",
    "name is {name!r}; expected {stem!r}, as the file is named": "name 为 {name!r}；应与文件名一致"
    "，为 {stem!r}",
    "the file holds no keys; expected a study: name, task, backbone, space, baseline": "文件中没有键；"
    "应为一个研究：name、task、backbone、space、baseline",
    "{n_text} characters; expected a study, under {longest}": "有 {n_text} 个字符；研究文件应少于 "
    "{longest} 个",
    "nested too deeply; expected the few levels of a study": "嵌套过深；研究文件只有几层",
    "not YAML: {problem}": "不是 YAML：{problem}",
    "not YAML: {reason}": "不是 YAML：{reason}",
    "not YAML: a value cannot be read ({kind})": "不是 YAML：有一个值无法读取（{kind}）",
    "duplicate key {key!r}; expected it once (first on line {first})": "键 {key!r} 重复；应只出现一"
    "次（首次在第 {first} 行）",
    "unknown key {key!r}; {known}{nearest}": "未知的键 {key!r}；{known}{nearest}",
    "unknown key {key!r}; expected {expected}": "未知的键 {key!r}；应为：{expected}",
    "missing key {key!r}; expected it here": "缺少键 {key!r}；应在此处",
    "missing key 'task'; expected task: (one of ours) or data: (your signals)": "缺少键 'task'；应"
    "有 task:（内置任务之一）或 data:（自己的信号）",
    "both task and data are given; expected one of them": "同时给出了 task 和 data；应只有其中之一",
    "{key}: {said}": "{key}：{said}",
    "{key} is {short}; expected {expected}{hint}": "{key} 为 {short}；应为：{expected}{hint}",
    "{key} is {value!r}; expected {expected}, as in recipe": "{key} 为 {value!r}；应与 recipe 中一"
    "样为：{expected}",
    "{key} {value} is not in space.{key}; expected one of {listed}": "{key} {value} 不在 "
    "space.{key} 中；应为以下之一：{listed}",
    "{key} is missing, and a recipe's own {value} is not in space.{key}": "缺少 {key}，而 recipe 的"
    "默认值 {value} 不在 space.{key} 中",
    "{count} combinations of losses and choices; expected at most {most}": "损失与选项有 {count} 种"
    "组合；应不多于 {most} 种",
    "{key} {value} of an encoder without groups; expected backbone.groups": "编码器没有分组却给出 "
    "{key} {value}；应有 backbone.groups",
    "label_smoothing {value} of a regression; expected 0": "回归任务的 label_smoothing 为 {value}；应为 0",
    "{key} is in recipe too; expected it in one of them": "{key} 也在 recipe 中；应只在其中一处",
    "{key} is not searched; expected it in recipe, or a list of values in space": "没有搜索 {key}；"
    "应放在 recipe 中，或在 space 中列出取值",
    "unknown {kind} {name!r}; expected one of {names}{nearest}": "未知的{kind} {name!r}；应为以下之"
    "一：{names}{nearest}",
    "unknown {kind} {name!r}": "未知的{kind} {name!r}",
    "task": "任务",
    "backbone": "编码器",
    "loss": "损失",
    "data set": "数据集",
    "data set or task": "数据集或任务",
    "data set, task or study": "数据集、任务或研究",
    "it is {given!r}; expected {expected}": "为 {given!r}；应为：{expected}",
    "it is {given!r}; expected a list of values": "为 {given!r}；应为取值列表",
    "a rate, a list of rates, or {low: ..., high: ...}": "学习率、学习率列表，或 {low: ..., high: ...}",
    "{rates}; expected numbers alone": "{rates}；应只有数字",
    "low is {low}; expected a number above 0 (the range is logarithmic)": "low 为 {low}；应大于 0（"
    "范围是对数的）",
    "low is {low}; expected at least {tiny}": "low 为 {low}；应不小于 {tiny}",
    "low {low} is not below high {high}; expected low < high": "low {low} 不小于 high {high}；应为 "
    "low < high",
    "low {low} is above high {high}; expected low <= high": "low {low} 大于 high {high}；应为 low <= high",
    "values {rates} from {low} to {high}; expected ascending ones whose ends these are": "取值 {rates} "
    "与范围 {low} 至 {high} 不符；应为升序，且两端与范围相同",
    "count {count} with {seeds} seeds from low to high; expected at most as many": "count 为 "
    "{count}，而 low 至 high 只有 {seeds} 个种子；应不多于此数",
    "{key} without a factory; expected factory: file.py:function": "有 {key} 却没有 factory；应有 "
    "factory: file.py:function",
    "loss {loss!r} does not fit task {name!r}; expected one of {fitting}": "损失 {loss!r} 不适用于"
    "任务 {name!r}；应为以下之一：{fitting}",
    "loss {loss!r} is not in space.loss; expected one of {losses}": "损失 {loss!r} 不在 space.loss "
    "中；应为以下之一：{losses}",
    "{key} {value} is outside the space; expected {allowed}": "{key} {value} 超出搜索空间；应为 {allowed}",
    "{count} values; expected 2 to {most}": "有 {count} 个取值；应为 2 至 {most} 个",
    "{key} {value} of {epochs} epochs; expected fewer than the epochs": "{key} 为 {value}，而总共 "
    "{epochs} 轮；应少于总轮数",
    "{value} twice; expected it once": "{value} 出现两次；应只出现一次",
    "greater than {gt}": "大于 {gt}",
    "greater than or equal to {ge}": "不小于 {ge}",
    "less than {lt}": "小于 {lt}",
    "less than or equal to {le}": "不大于 {le}",
    "integer": "整数",
    "integer, unable to parse string as an integer": "整数（该文本不是整数）",
    "integer, got a number with a fractional part": "整数（该数有小数部分）",
    "number": "数字",
    "number, unable to parse string as a number": "数字（该文本不是数字）",
    "a finite number": "有限的数",
    "boolean": "true 或 false",
    "boolean, unable to interpret input": "true 或 false",
    "string": "文本",
    "a list": "列表",
    "dictionary": "键和值",
}
FAULTS = MappingProxyType(
    _FORMS
    | _DONE
    | _ALERTS
    | _CHECKPOINTS
    | _COMMANDS
    | _DASHBOARD
    | _CONFIRMATION
    | _DIARY
    | _DATABASE
    | _STUDY_FILE
)
