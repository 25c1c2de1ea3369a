%% Kills, freezes and relieves leaders of several kinds of clusters, lets clients write, and prints how long things took.
%%
%% This VM is a hidden node that asks the process `bench` of each node (subject.erl): it is no part of their clusters. All nodes are
%% on this machine, and share its clock. Subjects take turns: all of them go through a part of the rounds, on fresh nodes, then
%% through the next part, so that what else the machine does meets all alike.
-module(harness).
-export([main/0]).

%% How many rounds one set of nodes lives through.
-define(ROUNDS_A_PASS, 10).
%% Nothing takes longer, in milliseconds, but what has to wait for net ticks, which take 45 to 75 s.
-define(LONGEST, 60000).
-define(NET_TICKS, 90000).
%% How long the nodes are left alone before something happens: all follow the leader again, and nobody waits for anybody.
-define(QUIET, 600).

main() ->
    Rounds = integer("ROUNDS", 50),
    Subjects = [Subject || Subject <- subjects(), chosen("SUBJECTS", maps:get(name, Subject))],
    Passes = max(1, Rounds div ?ROUNDS_A_PASS),
    Began = os:cmd("cat /proc/loadavg"),
    Figures = lists:append([
        [{Name, attempt(Part, Subject, Pass, min(Rounds, ?ROUNDS_A_PASS))}
         || #{name := Name} = Subject <- Subjects, Part <- [failovers, handovers_and_writes], chosen("PARTS", atom_to_list(Part)),
            tell("pass ~b of ~b, ~s: ~s~n", [Pass, Passes, Name, Part])]
     || Pass <- lists:seq(1, Passes)
    ]),
    Lines = [
        {Name, Of, Statistic, Value, Unit}
     || #{name := Name} <- Subjects, {Of, Values} <- grouped(lists:append([F || {N, F} <- Figures, N =:= Name])),
        {Statistic, Value, Unit} <- statistics(Of, Values)
    ],
    case os:getenv("JSON") of
        "true" -> [json(Line) || Line <- Lines];
        _ ->
            print("OTP ~s, ~b cores, ~b rounds, load ~s at the beginning, ~s at the end~n", [erlang:system_info(otp_release),
                erlang:system_info(logical_processors), Rounds, averages(Began), averages(os:cmd("cat /proc/loadavg"))]),
            table([Name || #{name := Name} <- Subjects], Lines),
            verdicts([Name || #{name := Name, adapter := bench_tiebeam} <- Subjects], Lines)
    end,
    [tell("failed, not counted: ~s~n", [Text]) || Text <- lists:reverse(failed())],
    halt(min(1, length(failed()))).

integer(Name, Default) -> list_to_integer(os:getenv(Name, integer_to_list(Default))).

chosen(Variable, Name) ->
    case os:getenv(Variable) of
        false -> true;
        Names -> lists:member(Name, string:lexemes(Names, ","))
    end.

%% A part that fails is said to have failed, at once and at the end, and has no figures; the others go on.
attempt(Part, #{name := Name} = Subject, Pass, Rounds) ->
    try part(Part, Subject, Pass, Rounds)
    catch _:Why ->
        Text = io_lib:format("~s, ~s, pass ~b: ~0p", [Name, Part, Pass, Why]),
        tell("failed: ~s~n", [Text]),
        put(failed, [Text | failed()]),
        []
    after
        stop_all()
    end.

failed() -> case get(failed) of undefined -> []; Failed -> Failed end.

%% How far it is.
tell(Format, Arguments) -> io:format(Format, Arguments), true.

%% Apart from what the nodes print.
print(Format, Arguments) -> ok = file:write_file(os:getenv("FIGURES"), io_lib:format(Format, Arguments), [append]).

averages(Load) -> lists:join(" ", lists:sublist(string:lexemes(Load, " "), 3)).

%% A subject is nodes of these kinds; `leads` is the kind of those that lead when something happens to the leader, and `can` what
%% it has.
subjects() ->
    Tiebeam = fun(Name, Kinds, Leads) ->
        #{name => Name, kinds => Kinds, leads => Leads, adapter => bench_tiebeam, can => [lead, activate], disks => [fsync, memory]}
    end,
    Beams = [beam, beam, beam],
    [
        Tiebeam("rust", [rust, rust, rust], rust),
        Tiebeam("beam", Beams, beam),
        Tiebeam("2b1r-beam", [beam, beam, rust], beam),
        Tiebeam("2b1r-rust", [beam, beam, rust], rust),
        Tiebeam("1b2r-beam", [beam, rust, rust], beam),
        Tiebeam("1b2r-rust", [beam, rust, rust], rust)
    ] ++
    [#{name => "ra", kinds => Beams, leads => beam, adapter => bench_ra, can => [lead], disks => [fsync, memory]}
     || os:getenv("RA") =/= false] ++
    [#{name => "global", kinds => Beams, leads => beam, adapter => bench_global, can => [activate], disks => [memory]}].

can(What, #{can := All}) -> lists:member(What, All).

%% What is measured.

part(failovers, #{disks := [Disk | _]} = Subject, Pass, Rounds) ->
    Cluster = start_cluster(Subject, Disk),
    %% global hears of a frozen node by net ticks alone, and may end one of the two holders when it is back: once, and last.
    Freezes = case Subject of
        #{adapter := bench_global} when Pass =:= 1 -> 1;
        #{adapter := bench_global} -> 0;
        _ -> Rounds
    end,
    {Kills, Killed} = rounds(Rounds, kill, Cluster),
    {Frozen, _} = rounds(Freezes, freeze, Killed),
    Kills ++ Frozen;
part(handovers_and_writes, #{disks := Disks} = Subject, _Pass, Rounds) ->
    lists:append([
        begin
            Cluster = start_cluster(Subject, Disk),
            Leaders = lists:append([leader_steps_down(Cluster, Disk, Round) || can(lead, Subject), Round <- lists:seq(1, Rounds)]),
            Active = [active_steps_down(Cluster, Disk) || can(activate, Subject), _ <- lists:seq(1, Rounds)],
            Writes = [{{writes, Disk, Clients}, writes(Cluster, Clients)} || can(lead, Subject), Clients <- [1, 64]],
            stop_all(),
            Leaders ++ Active ++ Writes
        end
     || Disk <- Disks
    ]).

rounds(0, _, Cluster) -> {[], Cluster};
rounds(Count, What, Cluster) ->
    {Figures, After} = failover(What, Count, Cluster),
    {More, Last} = rounds(Count - 1, What, After),
    {Figures ++ More, Last}.

%% Something happens to the node that leads and is active: until a write is acknowledged that a survivor was asked for after that,
%% and until another node is active.
failover(What, Round, #{subject := Subject} = Cluster) ->
    Victim = victim(Cluster),
    Survivor = lists:nth(1 + Round rem 2, names(Cluster) -- [Victim]),
    forget_messages(),
    Began = os:system_time(microsecond),
    signal(What, Victim, Cluster),
    Figures = try
        %% One after the other: what is written as one expression may be evaluated in any order.
        Write = [{{What, write}, written(Survivor) - Began} || can(lead, Subject)],
        Active = [{{What, active}, active_but(Victim) - Began} || can(activate, Subject)],
        Write ++ Active
    after
        What =:= freeze andalso signal(continue, Victim, Cluster)
    end,
    {Figures, case What of kill -> start_again(Victim, Cluster); freeze -> Cluster end}.

%% The longest of the writes of a client that writes without a pause, by a node that neither led nor leads, while leadership is
%% handed over; and while nothing happens.
leader_steps_down(#{subject := #{leads := Leads}} = Cluster, Disk, Round) ->
    Leader = leader_of_kind(Leads, Cluster),
    {To, Other} = case {Round rem 2, names(Cluster) -- [Leader]} of
        {0, [A, B]} -> {A, B};
        {1, [A, B]} -> {B, A}
    end,
    Quiet = longest_write(Other, fun() -> ok end),
    Longest = longest_write(Other, fun() -> repeat(fun() -> ask(Leader, {lead, To}) end) end),
    [{{step_down, Disk, write}, Longest}, {{nothing, Disk, write}, Quiet}].

longest_write(Node, Happens) ->
    Client = spawn_link(fun() -> client(Node, 0) end),
    timer:sleep(50),
    Happens(),
    timer:sleep(50),
    Client ! {stop, self()},
    receive {longest, Time} -> Time end.

client(Node, Longest) ->
    receive
        {stop, From} -> From ! {longest, Longest}
    after 0 ->
        Began = os:system_time(microsecond),
        client(Node, max(Longest, written(Node) - Began))
    end.

%% From the call until another node is active.
active_steps_down(#{subject := #{leads := Leads}} = Cluster, Disk) ->
    Active = active_of_kind(Leads, Cluster),
    %% Both others stand by again.
    timer:sleep(2 * subject:cooldown()),
    forget_messages(),
    Began = os:system_time(microsecond),
    repeat(fun() -> ask(Active, step_down) end),
    {{step_down, Disk, active}, active_but(Active) - Began}.

%% How many a second, and how long each took; the clients are on the node that leads.
writes(#{subject := #{leads := Leads}} = Cluster, Clients) ->
    Time = integer("MILLISECONDS", 2000),
    Leader = leader_of_kind(Leads, Cluster),
    Times = gen_server:call({bench, Leader}, {writes, Clients, Time}, ?LONGEST),
    {length(Times) * 1000 / Time, Times}.

%% Asking nodes.

%% The node that leads and is active, of the kind that shall, once all nodes say the same and are quiet.
victim(#{subject := #{leads := Leads} = Subject} = Cluster) ->
    Active = case can(activate, Subject) of
        true -> active_of_kind(Leads, Cluster);
        false -> leader_of_kind(Leads, Cluster)
    end,
    case not can(lead, Subject) orelse agreed(leader, Cluster) =:= Active of
        true ->
            [write(Node) || can(lead, Subject), Node <- names(Cluster)],
            timer:sleep(?QUIET),
            Still = [agreed(What, Cluster) || {What, Can} <- [{leader, lead}, {active, activate}], can(Can, Subject)],
            case lists:usort(Still) of
                [Active] -> Active;
                _changed -> victim(Cluster)
            end;
        false ->
            _refused = ask(Active, {lead, Active}),
            victim(Cluster)
    end.

leader_of_kind(Kind, Cluster) ->
    Leader = agreed(leader, Cluster),
    [Wanted | _] = All = of_kind(Kind, Cluster),
    case lists:member(Leader, All) of
        true -> Leader;
        false -> _refused = ask(Leader, {lead, Wanted}), leader_of_kind(Kind, Cluster)
    end.

%% Those that wait take turns.
active_of_kind(Kind, Cluster) ->
    Active = agreed(active, Cluster),
    case lists:member(Active, of_kind(Kind, Cluster)) of
        true -> Active;
        false -> _refused = ask(Active, step_down), timer:sleep(2 * subject:cooldown()), active_of_kind(Kind, Cluster)
    end.

%% What all nodes answer alike.
agreed(What, Cluster) ->
    Names = names(Cluster),
    until(fun() ->
        case lists:usort([ask(Name, What) || Name <- Names]) of
            [One] -> lists:member(One, Names) andalso {done, One};
            _ -> false
        end
    end, ?LONGEST).

write(Node) -> repeat(fun() -> ask(Node, write) end).

%% When it was acknowledged.
written(Node) -> write(Node), os:system_time(microsecond).

repeat(Ask) -> until(fun() -> Ask() =:= ok andalso {done, ok} end, ?LONGEST).

until(Try, Milliseconds) -> until_(Try, erlang:monotonic_time(millisecond) + Milliseconds).
until_(Try, Deadline) ->
    case Try() of
        {done, Result} -> Result;
        false ->
            erlang:monotonic_time(millisecond) < Deadline orelse exit({too_long, ?LONGEST}),
            timer:sleep(1),
            until_(Try, Deadline)
    end.

ask(Node, Request) ->
    try gen_server:call({bench, Node}, Request, 10000) catch exit:Why -> {error, Why} end.

%% When another node became active.
active_but(Node) ->
    receive
        {active, Other, At} when Other =/= Node -> At
    after ?NET_TICKS -> exit({nobody_is_active_but, Node})
    end.

forget_messages() -> receive _ -> forget_messages() after 0 -> ok end.

%% Nodes. A cluster is `#{subject, disk, nodes := #{Name => {Kind, ProcessId}}}`.

start_cluster(#{kinds := Kinds} = Subject, Disk) ->
    Number = erlang:unique_integer([positive]),
    Named = [{list_to_atom(lists:flatten(io_lib:format("bench~b-~b@127.0.0.1", [I, Number]))), Kind}
             || {I, Kind} <- lists:zip([1, 2, 3], Kinds)],
    Cluster = #{subject => Subject, disk => Disk, voters => [Name || {Name, _} <- Named]},
    Nodes = maps:from_list([{Name, start_node(Kind, Name, Cluster)} || {Name, Kind} <- Named]),
    Started = Cluster#{nodes => Nodes},
    [stand_by(Name, Started) || {Name, _} <- Named],
    Started.

names(#{voters := Voters}) -> Voters.

of_kind(Kind, #{nodes := Nodes}) -> [Name || {Name, {K, _}} <- lists:sort(maps:to_list(Nodes)), K =:= Kind].

start_again(Name, #{nodes := Nodes} = Cluster) ->
    #{Name := {Kind, _}} = Nodes,
    After = Cluster#{nodes := Nodes#{Name := start_node(Kind, Name, Cluster)}},
    stand_by(Name, After),
    After.

stand_by(Name, #{subject := Subject}) ->
    can(activate, Subject) andalso repeat(fun() -> ask(Name, {stand_by, self()}) end).

start_node(rust, Name, #{voters := Voters} = Cluster) ->
    Arguments = [atom_to_list(Name), atom_to_list(erlang:get_cookie()), lists:join(",", [atom_to_list(V) || V <- Voters]),
        case disk(Name, Cluster) of memory -> "memory"; Directory -> Directory end],
    Port = open_port({spawn_executable, os:getenv("RUST_NODE")}, [{args, Arguments}, {line, 200}, exit_status]),
    receive
        {Port, {data, {eol, "ready"}}} -> ok;
        {Port, Other} -> exit({Name, is_not_ready, Other})
    after ?LONGEST -> exit({Name, is_not_ready})
    end,
    {os_pid, ProcessId} = erlang:port_info(Port, os_pid),
    started({rust, ProcessId}, fun() -> port_close(Port) end);
start_node(beam, Name, #{subject := #{adapter := Adapter}, voters := Voters} = Cluster) ->
    [Short, Host] = string:lexemes(atom_to_list(Name), "@"),
    Paths = [filename:dirname(code:which(?MODULE)) | Adapter:paths()],
    Arguments = lists:append([["-pa", Path] || Path <- Paths]) ++
        ["-setcookie", atom_to_list(erlang:get_cookie()), "-kernel", "inet_dist_use_interface", "{127,0,0,1}",
         "-kernel", "logger_level", "emergency", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"],
    {ok, Peer, Name} = peer:start(#{name => list_to_atom(Short), host => Host, longnames => true, connection => standard_io,
        args => Arguments, wait_boot => ?LONGEST}),
    ok = peer:call(Peer, subject, start, [Adapter, #{voters => Voters, disk => disk(Name, Cluster)}], ?LONGEST),
    started({beam, list_to_integer(peer:call(Peer, os, getpid, []))}, fun() -> peer:stop(Peer) end).

%% How each is stopped is kept apart from the cluster, so that all of them end, whatever happens.
started(Node, Stop) ->
    put(started, [Stop | case get(started) of undefined -> []; All -> All end]),
    Node.

stop_all() ->
    %% Some were killed before.
    [catch Stop() || Stop <- case erase(started) of undefined -> []; All -> All end],
    forget_messages().

disk(_, #{disk := memory}) -> memory;
disk(Name, #{disk := fsync}) -> filename:join(os:getenv("BENCH_DIR"), atom_to_list(Name)).

signal(What, Name, #{nodes := Nodes}) ->
    #{Name := {_, ProcessId}} = Nodes,
    Signal = case What of kill -> "KILL"; freeze -> "STOP"; continue -> "CONT" end,
    [] = os:cmd(lists:flatten(io_lib:format("kill -~s ~b", [Signal, ProcessId]))),
    ok.

%% Figures.

grouped(Figures) ->
    [{Of, [Value || {O, Value} <- Figures, O =:= Of]} || Of <- lists:usort([Of || {Of, _} <- Figures])].

statistics({writes, _, _}, Passes) ->
    Rates = lists:sort([Rate || {Rate, _} <- Passes]),
    [{rate, lists:nth((length(Rates) + 1) div 2, Rates), "/s"} | times(lists:append([Times || {_, Times} <- Passes]))];
statistics(_, Values) -> times(Values).

times(Values) ->
    Sorted = lists:sort(Values),
    At = fun(Percent) -> lists:nth(max(1, ceil(length(Sorted) * Percent / 100)), Sorted) / 1000 end,
    [{p50, At(50), "ms"}, {p99, At(99), "ms"}, {max, At(100), "ms"}].

json({Name, Of, Statistic, Value, Unit}) ->
    print("{\"of\":\"~s ~s\",\"name\":\"~s\",\"value\":~.3f,\"unit\":\"~s\"}~n", [Name, text(Of), Statistic, float(Value), Unit]).

text({writes, Disk, Clients}) -> io_lib:format("write, ~s, ~b clients", [Disk, Clients]);
text({nothing, Disk, write}) -> io_lib:format("longest write of 100 ms, ~s", [Disk]);
text({step_down, Disk, write}) -> io_lib:format("leader steps down, ~s", [Disk]);
text({step_down, Disk, active}) -> io_lib:format("active steps down, ~s", [Disk]);
text({What, write}) -> io_lib:format("~s, next write", [What]);
text({What, active}) -> io_lib:format("~s, next active", [What]).

table(Names, Lines) ->
    Rows = lists:usort([{Of, order(Statistic), Statistic, Unit} || {_, Of, Statistic, _, Unit} <- Lines]),
    print("~-40s~s~n", ["", [io_lib:format("~12s", [Name]) || Name <- Names]]),
    [print("~-40s~s~n", [[text(Of), " ", atom_to_list(Statistic), " ", Unit], [cell(value(Name, Of, Statistic, Lines)) || Name <- Names]])
     || {Of, _, Statistic, Unit} <- Rows],
    ok.

order(Statistic) -> string:str("rate p50 p99 max", atom_to_list(Statistic)).

value(Name, Of, Statistic, Lines) ->
    case [Value || {N, O, S, Value, _} <- Lines, N =:= Name, O =:= Of, S =:= Statistic] of
        [Value] -> Value;
        [] -> none
    end.

cell(none) -> io_lib:format("~12s", ["-"]);
cell(Value) when Value >= 100 -> io_lib:format("~12b", [round(Value)]);
cell(Value) -> io_lib:format("~12.2f", [float(Value)]).

%% The goals of the profile `lan`, in milliseconds. A killed node's connections end, so that the others know at once; a frozen one
%% says nothing.
verdicts(Names, Lines) ->
    Goals = [
        {{kill, write}, p50, 100}, {{kill, write}, p99, 1000}, {{freeze, write}, p50, 350}, {{freeze, write}, p99, 1000},
        {{step_down, memory, write}, p50, 30}, {{step_down, fsync, write}, p50, 30}
    ],
    [
        print("~s, ~s ~s ms: ~.1f (goal ~b: ~s)~n", [Name, text(Of), Statistic, float(Value), Goal,
            case Value < Goal of true -> "met"; false -> "missed" end])
     || Name <- Names, {Of, Statistic, Goal} <- Goals, Value <- [value(Name, Of, Statistic, Lines)], Value =/= none
    ],
    [
        print("~s, ~s ~s: ra's = 1, ~.2f~n", [Name, text(Of), Statistic, Value / Ra])
     || Name <- Names, {Of, Statistic} <- [{{kill, write}, p50}, {{freeze, write}, p50}, {{step_down, fsync, write}, p50},
            {{writes, fsync, 1}, rate}, {{writes, fsync, 64}, rate}],
        Value <- [value(Name, Of, Statistic, Lines)], Value =/= none,
        Ra <- [value("ra", Of, Statistic, Lines)], Ra =/= none
    ].
