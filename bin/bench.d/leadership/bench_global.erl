%% An election as it is made with OTP's global: whoever registers the name is active, the others watch that process and try when it
%% ends. It has no log to write to.
-module(bench_global).
-behaviour(subject).
-export([paths/0, start/1, active/0, stand_by/1, step_down/0]).

paths() -> [].

%% Nodes that do not know each other yet would each register the name.
start(#{voters := Voters}) ->
    [net_kernel:connect_node(Voter) || Voter <- Voters],
    ok = global:sync().

active() ->
    case global:whereis_name(bench) of
        undefined -> nil;
        Pid -> node(Pid)
    end.

stand_by(Told) ->
    spawn(fun() -> candidate(Told) end),
    ok.

candidate(Told) ->
    case global:register_name(bench, self()) of
        yes ->
            Told(),
            receive
                {step_down, From} ->
                    global:unregister_name(bench),
                    From ! {stepped_down, self()},
                    spawn(fun() -> timer:sleep(subject:cooldown()), candidate(Told) end)
            end;
        no ->
            case global:whereis_name(bench) of
                undefined -> candidate(Told);
                Pid ->
                    Monitor = monitor(process, Pid),
                    receive {'DOWN', Monitor, _, _, _} -> candidate(Told) end
            end
    end.

step_down() ->
    Pid = global:whereis_name(bench),
    Pid ! {step_down, self()},
    receive {stepped_down, Pid} -> ok after 10000 -> {error, timeout} end.
