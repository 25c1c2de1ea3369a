# Crashes the supervised servers of main.rs.

rust = :"worker@127.0.0.1"
adder = {:adder, rust}
Process.flag(:trap_exit, true)

for number <- 1..3, do: GenServer.call(adder, number)
pid = :rpc.call(rust, :erlang, :whereis, [:adder])
IO.puts("sum:      #{GenServer.call(pid, 0)}")

# It is linked as any process; what it ends for comes from Rust.
Process.link(pid)
GenServer.cast(adder, 1_000)

receive do
  {:EXIT, ^pid, reason} -> IO.puts("exit:     #{inspect(reason)}")
end

# Its supervisor starts it again under its name: until then nobody has that.
defmodule Wait do
  def until(fun), do: fun.() || (Process.sleep(10) && until(fun))
end

Wait.until(fn -> :rpc.call(rust, :erlang, :whereis, [:adder]) not in [:undefined, pid] end)
other = :rpc.call(rust, :erlang, :whereis, [:adder])

IO.puts(
  "sum:      #{GenServer.call(adder, 1)}, by #{if other == pid, do: "the same process", else: "another process"}"
)

children = for {id, _pid, kind, _modules} <- Supervisor.which_children({:workers, rust}), do: {id, kind}
IO.puts("children: #{inspect(children)}")

# A third crash within a minute is too many: the supervisor gives up.
supervisor = Process.monitor({:workers, rust})

for _ <- 1..2 do
  pid = Wait.until(fn -> is_pid(pid = :rpc.call(rust, :erlang, :whereis, [:audit])) && pid end)
  monitor = Process.monitor(pid)
  GenServer.cast(pid, 1_000)
  receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
end

receive do
  {:DOWN, ^supervisor, _, _, reason} -> IO.puts("stopped:  #{inspect(reason)}")
end

IO.puts("gone:     #{:rpc.call(rust, :erlang, :whereis, [:adder]) == :undefined}")
