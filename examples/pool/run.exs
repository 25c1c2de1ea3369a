# Calls the workers of the nodes a and b; has none itself.

resizers = {Shop, "resizers"}
[a, b] = [:"a@127.0.0.1", :"b@127.0.0.1"]
{:ok, _} = Tiebeam.start_link(name: Shop, join: [a, b])

defmodule Workers do
  # The nodes of the workers, once they are these.
  def await(pool, nodes) do
    if Enum.sort(for worker <- Tiebeam.Pool.workers(pool), do: node(worker)) == nodes do
      nodes
    else
      Process.sleep(10)
      await(pool, nodes)
    end
  end
end

IO.puts("workers: #{inspect(Workers.await(resizers, [a, b]))}")

{:ok, {:small, "cat.png", _node}} = Tiebeam.Pool.call(resizers, {:resize, "cat.png"}, timeout: 30_000)
IO.puts("any:     resized by one of them")

answers = Tiebeam.Pool.call(resizers, {:resize, "cat.png"}, route: :all, timeout: 30_000)
nodes = for {_worker, {:ok, {:small, "cat.png", node}}} <- answers, do: node
IO.puts("all:     resized by #{inspect(Enum.sort(nodes))}")

nodes =
  for _ <- 1..10 do
    route = {:key, "customer:7"}

    {:ok, {:small, _image, node}} =
      Tiebeam.Pool.call(resizers, {:resize, "cat.png"}, route: route, timeout: 30_000)

    node
  end

IO.puts("key:     always resized by the same: #{length(Enum.uniq(nodes)) == 1}")

# Who was called is told so, and the worker is started again.
before = Tiebeam.Pool.workers(resizers)
{:error, {:down, _reason}} = Tiebeam.Pool.call(resizers, :crash, route: :any, timeout: 30_000)

defmodule Again do
  def await(pool, before) do
    workers = Tiebeam.Pool.workers(pool)

    if length(workers) == 2 and workers -- before != [],
      do: :ok,
      else:
        (
          Process.sleep(10)
          await(pool, before)
        )
  end
end

:ok = Again.await(resizers, before)
IO.puts("crash:   the call fails, the worker is started again")

# Before a node is stopped: it finishes what it was sent, and gets no more.
:ok = :erpc.call(a, Tiebeam.Pool, :drain, [resizers])
IO.puts("drained: #{inspect(Workers.await(resizers, [b]))}")
{:ok, {:small, "dog.png", "b@127.0.0.1"}} = Tiebeam.Pool.call(resizers, {:resize, "dog.png"}, timeout: 30_000)
IO.puts("any:     resized by b")
